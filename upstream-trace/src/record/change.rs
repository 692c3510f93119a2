//! A change of state as JSON, spelled when this was compiled: most steps of a timeline are one, and there are few different ones.
//!
//! Must not know: when it was.

use serde::{Serialize, Serializer};

use super::{Step, StepKind};
use crate::tcp::State;

/// What follows the name `event` in a step.
pub(super) struct Change(&'static [u8]);

/// Text and its length.
type Text = ([u8; LONGEST], usize);

const LONGEST: usize = r#""state","from":"NEW_SYN_RECV","to":"NEW_SYN_RECV""#.len();

/// By the state before and the one after.
static CHANGES: [[Text; State::COUNT]; State::COUNT] = {
    let mut changes = [[([0; LONGEST], 0); State::COUNT]; State::COUNT];
    let mut from = 0;
    while from < State::COUNT {
        let mut to = 0;
        while to < State::COUNT {
            changes[from][to] = spell(State::ALL[from], State::ALL[to]);
            to += 1;
        }
        from += 1;
    }
    changes
};

const fn spell(from: State, to: State) -> Text {
    let parts = [
        r#""state","from":""#,
        from.as_str(),
        r#"","to":""#,
        to.as_str(),
        "\"",
    ];
    let (mut text, mut len) = ([0; LONGEST], 0);
    let mut part = 0;
    while part < parts.len() {
        let (rest, bytes) = (text.split_at_mut(len).1, parts[part].as_bytes());
        rest.split_at_mut(bytes.len()).0.copy_from_slice(bytes);
        len += bytes.len();
        part += 1;
    }
    (text, len)
}

impl Change {
    /// `None` where the step is something else.
    #[inline]
    pub(super) fn of(step: &Step) -> Option<Self> {
        if step.event != StepKind::State || step.errno.is_some() {
            return None;
        }
        let (from, to) = (step.from?, step.to?);
        let (text, len) = CHANGES.get(from.index())?.get(to.index())?;
        text.get(..*len).map(Self)
    }
}

impl Serialize for Change {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}
