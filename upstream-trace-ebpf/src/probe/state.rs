//! `inet_sock_set_state`: births, deaths and every step between.
//!
//! proto: `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
//! since 4.16; 5.10 to 7.2 alike. Fires before `sk_state` is written.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use upstream_trace_common::{event::kind, story::Story};

use crate::{
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
    let sk: *const u8 = ctx.arg(0);
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "enum tcp_state"
    )]
    changed(sk, old as u8, new as u8);
    0
}

#[inline(always)]
fn changed(sk: *const u8, old: u8, new: u8) {
    // Up to 6.12 the child still has its listener's addresses here; its birth is the next step.
    if old == state::LISTEN && new == state::SYN_RECV {
        return;
    }
    let what = What {
        kind: kind::STATE,
        old,
        new,
    };
    let birth = old == state::CLOSE || old == state::SYN_RECV && new == state::ESTABLISHED;
    if !birth
        && let Some(story) = story::of(sk)
        && goes_on(story, sk, what)
    {
        return;
    }
    let Some(sock) = Struct::<Direct>::new(sk).and_then(TcpSock::direct) else {
        return;
    };
    let tuple = if old == state::CLOSE {
        sock.tuple_at_birth()
    } else {
        sock.tuple()
    };
    let Some(tuple) = tuple else {
        return emit::unreadable();
    };
    let passes = match (old, new) {
        // connect(): the current task is the owner.
        (state::CLOSE, state::SYN_SENT) => {
            filter::wants_connecting(&tuple) && filter::own_as_current(sk)
        }
        (state::CLOSE, state::LISTEN) => {
            listener::opened(sk, &tuple);
            filter::wants(&tuple) && filter::own_listener(sk, &tuple)
        }
        (state::LISTEN, _) => {
            listener::closed(sk, &tuple);
            filter::wants(&tuple) && filter::owned(sk)
        }
        (state::SYN_RECV, state::ESTABLISHED) => {
            filter::wants(&tuple) && filter::own_as_child(sk, &tuple)
        }
        _ => filter::wants(&tuple) && filter::owned(sk),
    };
    if !passes || birth && new != state::LISTEN && story::begin(what, sk, &tuple) {
        return;
    }
    match new {
        state::CLOSE => {
            // The current task is the actor only where the socket is still somebody's: an abort, or
            // connect(AF_UNSPEC).
            let is_open = sock.is_open();
            let who = if is_open { Who::Current } else { Who::Nobody };
            failed(old, is_open, sock, &tuple);
            emit::full(what, sock, &tuple, who);
        }
        // connect(), listen(), and close() or shutdown(), in the context of who calls them.
        state::SYN_SENT | state::LISTEN | state::FIN_WAIT1 | state::LAST_ACK => {
            emit::acted(what, sk, &tuple, Who::Current);
        }
        _ => emit::base(what, sk, &tuple),
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
        emit::note(what, tuple, [first, last, 0]);
    }
}

/// Takes the change into the socket's story; `false` where it has to be told by itself.
#[inline(always)]
fn goes_on(story: &mut Story, sk: *const u8, what: What) -> bool {
    let Some(sk) = Struct::<Direct>::new(sk) else {
        return false;
    };
    if what.new != state::CLOSE {
        let local_port = sk.get(&mem::SK_NUM);
        return story::step(story, sk.address(), what, local_port);
    }
    let Some(sock) = TcpSock::direct(sk) else {
        return false;
    };
    if sock.is_open() {
        // Who closes it matters.
        story::tell(story, sock);
        return false;
    }
    story::end(story, what.old, false, sock);
    true
}
