//! A socket's story as the events that it was made of.
//!
//! Must not know: connections.

use upstream_trace_common::{
    event::{Actor, Base, kind},
    story::{AT_ACCEPT, AT_BIRTH, Story},
};

/// Whether the socket was accepted and not another one that had the same place in the kernel's table.
fn was_accepted(story: &Story) -> bool {
    story.accepted != 0 && story.accepted_sk == story.sk
}

/// The steps after the birth in order of time, each with its actor.
pub fn steps(story: &Story) -> impl Iterator<Item = (Base, Option<&Actor>)> {
    let own = story.at.iter().zip(&story.what).take(story.len.into());
    let mut own = (0_u8..).zip(own).peekable();
    let mut accepted = was_accepted(story).then_some(story.accepted);
    std::iter::from_fn(move || {
        let next = own.peek().map_or(u64::MAX, |&(_, (&at, _))| at);
        if let Some(ktime) = accepted.take_if(|accepted| *accepted <= next) {
            let base = Base {
                ktime,
                kind: kind::ACCEPT,
                ..story.base()
            };
            return Some((base, (story.acted == AT_ACCEPT).then_some(&story.actor)));
        }
        let (index, (&ktime, &what)) = own.next()?;
        Some((
            story.event(what, ktime),
            (story.acted == index).then_some(&story.actor),
        ))
    })
}

/// Who connected.
pub fn connector(story: &Story) -> Option<&Actor> {
    (story.acted == AT_BIRTH).then_some(&story.actor)
}
