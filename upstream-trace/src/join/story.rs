//! A socket's story as the events that it was made of.
//!
//! Must not know: connections.

use upstream_trace_common::{
    event::{Actor, kind},
    story::{AT_ACCEPT, AT_BIRTH, Change, Story},
};

/// Whether the socket was accepted and not another one that had the same place in the kernel's table.
fn was_accepted(story: &Story) -> bool {
    story.accepted != 0 && story.accepted_sk == story.sk
}

/// A step after the birth.
#[derive(Debug)]
pub struct Step<'a> {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub ktime: u64,
    /// One of [`kind`].
    pub kind: u8,
    /// From which state to which.
    pub change: Change,
    /// Who acted.
    pub actor: Option<&'a Actor>,
}

/// The steps in order of time.
pub fn steps(story: &Story) -> impl Iterator<Item = Step<'_>> {
    let acted = |at| (story.acted == at).then_some(&story.actor);
    let mut accepted = was_accepted(story).then_some(story.accepted);
    let mut index = 0;
    std::iter::from_fn(move || {
        let at = usize::from(index);
        let own = story.at.get(at).zip(story.what.get(at));
        let own = own.filter(|_| index < story.len);
        let next = own.map_or(u64::MAX, |(&ktime, _)| ktime);
        if let Some(ktime) = accepted.take_if(|accepted| *accepted <= next) {
            return Some(Step {
                ktime,
                kind: kind::ACCEPT,
                change: story.birth,
                actor: acted(AT_ACCEPT),
            });
        }
        let (&ktime, &change) = own?;
        let actor = acted(index);
        index += 1;
        Some(Step {
            ktime,
            kind: change.kind(),
            change,
            actor,
        })
    })
}

/// Who connected.
pub fn connector(story: &Story) -> Option<&Actor> {
    (story.acted == AT_BIRTH).then_some(&story.actor)
}
