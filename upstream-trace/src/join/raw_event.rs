//! One event as a line of its own (`--events`), whatever connection it belongs to.
//!
//! Must not know: what it does to a connection, how one is judged.

use upstream_trace_common::event::{IPV4, kind};

use super::{
    connection::Slot,
    engine::{Context, Engine, Sink, WallClock},
    reason,
    tuple::Tuple,
};
use crate::{
    decode::Event,
    record::{self, EventType, Id, Schema},
    tcp::{self, State},
};

/// Prints one event, of the connection in `slot`.
pub(super) fn print(
    engine: &Engine,
    event: Event<'_>,
    slot: Option<Slot>,
    clock: &impl WallClock,
    sink: &mut impl Sink,
) {
    let Some((hook, acted)) = hook(event) else {
        return;
    };
    let base = event.base;
    let tuple = Tuple::of(base);
    let connection = slot.and_then(|slot| engine.table.get(slot));
    let pid = event.actor.map_or(0, |actor| actor.tgid);
    // Of these `old` is no state of a socket.
    let is_stateless = matches!(
        base.kind,
        kind::RESET_SENT_NO_SOCKET | kind::SYN_ICMP | kind::SYN_DROPPED
    );
    let mut record = record::Event {
        schema: Schema,
        kind: EventType,
        time: clock.at(base.ktime),
        seq: 0,
        id: connection.map(|connection| Id {
            run: engine.context.run,
            serial: connection.serial,
        }),
        netns: (base.netns != 0).then_some(base.netns),
        family: tuple.family(),
        local: tuple.local(),
        remote: tuple.remote(),
        event: hook,
        from: State::from_kernel(base.old).filter(|_| !is_stateless),
        to: State::from_kernel(base.new).filter(|_| base.kind == kind::STATE),
        reason: reason(&engine.context, event),
        errno: event.stats.and_then(|stats| tcp::errno_name(stats.err)),
        pid: (acted && pid != 0).then_some(pid),
    };
    sink.event(&mut record);
}

/// The name of the hook that saw it, and whether the current task acted then; `None`: what is told of is no event of its own.
fn hook(event: Event<'_>) -> Option<(&'static str, bool)> {
    Some(match event.base.kind {
        // What the network ends runs in the context of whoever the packet met.
        kind::STATE => {
            let is_error = event.stats.is_some_and(|stats| stats.err != 0);
            ("inet_sock_set_state", !is_error)
        }
        kind::CONNECT => ("tcp_connect", true),
        kind::ACCEPT => ("inet_csk_accept", true),
        kind::RESET_RECEIVED => ("tcp_receive_reset", false),
        kind::RESET_SENT_ACTIVE..=kind::RESET_SENT_LISTEN => ("tcp_send_reset", false),
        kind::DESTROY => ("tcp_destroy_sock", false),
        kind::SYN_RETRANSMIT => ("tcp_retransmit_skb", false),
        kind::HELD => ("task_file", true),
        kind::SYN_ICMP if event.base.family == IPV4 => ("tcp_v4_err", false),
        kind::SYN_ICMP => ("tcp_v6_err", false),
        kind::RESET_PACKET => ("tcp_reset", false),
        kind::RESET_DROPPED | kind::SYN_DROPPED => ("kfree_skb", false),
        _ => return None,
    })
}

/// The kernel's name of why a reset was sent, or a packet dropped.
fn reason<'a>(context: &'a Context, event: Event<'_>) -> Option<&'a str> {
    let value = event.base.new;
    match event.base.kind {
        kind::RESET_SENT_ACTIVE..=kind::RESET_SENT_LISTEN => {
            reason::of_sent(context, value, || None).0
        }
        kind::SYN_DROPPED | kind::RESET_DROPPED => context.drop_reasons.name(value),
        _ => None,
    }
}
