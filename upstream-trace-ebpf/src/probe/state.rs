//! `inet_sock_set_state`: births, deaths and every step between.
//!
//! proto: `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
//! since 4.16; 5.10 to 7.2 alike. Fires before `sk_state` is written.

use core::ptr;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use upstream_trace_common::{event::kind, story::Place};

use crate::{
    actor,
    emit::{self, What, Who},
    filter,
    kernel::{
        mem::{self, Direct, Struct},
        sock::{TcpSock, Tuple, state},
    },
    listener, story,
};

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "enum tcp_state"
    )]
    let (old, new) = (old as u8, new as u8);
    if let Some(sk) = Struct::new(ctx.arg(0))
        && let Some((what, tuple)) = changed(sk, old, new)
    {
        emit::by_owner(what, sk, &tuple);
    }
    0
}

/// What is left to tell of the process that acts: at one place for all, because to read it takes more code than
/// everything else.
type Act = (What, Tuple);

#[inline(always)]
fn changed(sk: Struct<Direct>, old: u8, new: u8) -> Option<Act> {
    // close() after shutdown() sets the state that the socket has (`tcp_close_state`). Before 6.15 a child still has its
    // listener's addresses at its first change (`inet_csk_clone_lock`; a3a128f611a9); its birth is the next one.
    if old == new || old == state::LISTEN && new == state::SYN_RECV {
        return None;
    }
    let what = What {
        kind: kind::STATE,
        old,
        new,
    };
    if old == state::LISTEN || new == state::LISTEN {
        return listens(sk, what);
    }
    let address = sk.address();
    let place = story::place(address)?;
    let birth = old == state::CLOSE || old == state::SYN_RECV && new == state::ESTABLISHED;
    if story::is_of(place, address) {
        if goes_on(place, sk, what, birth) {
            return None;
        }
        story::give_up(place);
    }
    let (connects, ends) = (old == state::CLOSE, new == state::CLOSE);
    // Most connections of a node are nobody's concern, and their ports, which are at hand until the end, say so.
    if !ends {
        let (local, remote) = (sk.get(&mem::SK_NUM)?, sk.remote_port()?);
        if !(filter::wants_ports(local, remote) || connects && filter::may_want_port(local)) {
            return None;
        }
    }
    let sock = TcpSock::direct(sk)?;
    let Some(tuple) = sock.tuple_at(connects) else {
        emit::unreadable();
        return None;
    };
    let passes = filter::wants_networks(&tuple)
        && (!ends || filter::wants_ports(tuple.local_port, tuple.remote_port));
    if !passes || !owned(address, what, &tuple) {
        return None;
    }
    // A child that has a process already was accepted before its handshake was complete (Fast Open): the accept was told
    // by itself, and so is what follows.
    let accepted = old == state::SYN_RECV && sock.is_open();
    if birth && !accepted && story::begin(place, what, address, &tuple) {
        let tells = connects && !actor::is_told(&place.story.actor);
        return tells.then_some((actor::INTRODUCED, tuple));
    }
    match new {
        state::CLOSE => {
            // The current task is the actor only where the socket is still somebody's, an abort or connect(AF_UNSPEC),
            // and the last packet of an orderly end has not ended it: one that was shut down, and is not closed yet.
            let is_open = sock.is_open();
            failed(old, is_open, sock, &tuple);
            let who = if is_open && !parted(old, sk) {
                Who::Current
            } else {
                Who::Nobody
            };
            emit::full(what, sock, &tuple, who);
            None
        }
        // connect(), and close() or shutdown(), in the context of who calls them.
        state::SYN_SENT | state::FIN_WAIT1 | state::LAST_ACK => Some((what, tuple)),
        _ => {
            emit::base(what, address, &tuple);
            None
        }
    }
}

/// Whether the socket is one of a wanted owner's, or nobody asked.
#[inline(always)]
fn owned(sk: *const u8, what: What, tuple: &Tuple) -> bool {
    match (what.old, what.new) {
        // connect(): the current task is the owner.
        (state::CLOSE, _) => filter::own_as_current(sk),
        (state::SYN_RECV, state::ESTABLISHED) => filter::own_as_child(sk, tuple),
        _ => filter::owned(sk),
    }
}

/// `listen()`, and the `close()` of a socket that listens, in the context of who calls them.
#[inline(always)]
fn listens(sk: Struct<Direct>, what: What) -> Option<Act> {
    let sock = TcpSock::direct(sk)?;
    let opens = what.new == state::LISTEN;
    let Some(tuple) = sock.tuple_at(opens) else {
        emit::unreadable();
        return None;
    };
    let sk = sk.address();
    if opens {
        listener::opened(sk, &tuple);
    } else {
        listener::closed(sk, &tuple);
    }
    let tells = filter::wants_listener(&tuple)
        && if opens {
            filter::own_listener(sk, &tuple)
        } else {
            filter::owned(sk)
        };
    tells.then_some((what, tuple))
}

/// Whether both ends have sent their FIN. `tcp_fin` notes the other's before it ends the socket.
#[inline(always)]
fn parted(old: u8, sk: Struct<Direct>) -> bool {
    match old {
        state::CLOSING | state::LAST_ACK => true,
        state::FIN_WAIT2 => sk.fin_received(),
        _ => false,
    }
}

/// What there was no room for, where that is why the connection ended.
#[inline(always)]
fn failed(old: u8, is_open: bool, sock: TcpSock<Direct>, tuple: &Tuple) {
    if tuple.local_port != 0 {
        return listener::unreached(old, is_open, tuple);
    }
    if old == state::SYN_SENT
        && let Some([first, last]) = sock.port_range()
    {
        let what = What {
            kind: kind::PORT_RANGE,
            old: 0,
            new: 0,
        };
        emit::note(what, ptr::null(), tuple, [first, last, 0, 0, 0]);
    }
}

/// Takes the change into the socket's story; `false` where that has to be told as far as it got, and the change by
/// itself.
#[inline(always)]
fn goes_on(place: &mut Place, sk: Struct<Direct>, what: What, birth: bool) -> bool {
    let story = &mut place.story;
    // A simultaneous open, or a connection to itself; else the end of the socket that had this address was kept
    // from every hook.
    if birth && (what.old != state::SYN_RECV || story.state != state::SYN_RECV) {
        story.over = 1;
        return false;
    }
    if what.new != state::CLOSE {
        return story::step(story, what, sk);
    }
    let Some(sock) = TcpSock::direct(sk) else {
        return false;
    };
    if sock.is_open() {
        // Who closes it matters.
        story::know_port(story, || sock.local_port());
        return false;
    }
    story::end(place, what.old, false, sock);
    true
}
