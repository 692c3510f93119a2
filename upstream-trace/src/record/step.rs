//! One step of a timeline in eight bytes, and how it is spelled.
//!
//! A change of state is spelled when this is compiled: most steps are one, and there are few different ones.
//! Must not know: whose timeline it is.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::{StepKind, spelling::Verbatim};
use crate::tcp::{self, State};

/// One step of the timeline: 48 bits of microseconds, 4 of kind, 12 of detail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step(u64);

impl Step {
    /// A step without a detail.
    pub const fn new(at_us: u64, event: StepKind) -> Self {
        Self(at_us << 16 | (event as u64) << 12)
    }

    /// A change of state, by the kernel's numbers; one that is no state is not shown.
    pub const fn state(at_us: u64, before: u8, after: u8) -> Self {
        let detail = (before as u64 & 0xf) << 4 | (after as u64 & 0xf);
        Self(Self::new(at_us, StepKind::State).0 | detail)
    }

    /// What the application was told, by its number; one that TCP never reports is not shown.
    pub const fn error(at_us: u64, errno: u32) -> Self {
        Self(Self::new(at_us, StepKind::Error).0 | (errno & 0xfff) as u64)
    }

    /// Microseconds from the start of the connection.
    pub const fn at_us(self) -> u64 {
        self.0 >> 16
    }

    /// What happened.
    pub fn event(self) -> StepKind {
        let kinds = StepKind::ALL.get((self.0 >> 12 & 0xf) as usize);
        kinds.copied().unwrap_or(StepKind::Error)
    }

    /// The states before and after, where it is a change between two that are known.
    pub fn change(self) -> Option<(State, State)> {
        let Shown { from, to, .. } = self.shown();
        from.zip(to)
    }

    /// The name of what the application was told.
    pub fn errno(self) -> Option<&'static str> {
        self.shown().errno
    }

    /// What follows the name `event` in a step that is a change of state.
    #[inline]
    fn spelled_change(self) -> Option<Verbatim<'static>> {
        let detail = (self.0 & 0xffff) ^ (StepKind::State as u64) << 12;
        let (text, len) = CHANGES.get(usize::try_from(detail).ok()?)?;
        let text = text.get(..*len).filter(|text| !text.is_empty());
        text.map(Verbatim)
    }

    fn shown(self) -> Shown {
        let (event, detail) = (self.event(), (self.0 & 0xfff) as u16);
        let state = |number: u16| State::from_kernel((number & 0xf) as u8);
        let is = |kind| event == kind;
        Shown {
            at_us: self.at_us(),
            event,
            from: state(detail >> 4).filter(|_| is(StepKind::State)),
            to: state(detail).filter(|_| is(StepKind::State)),
            errno: tcp::errno_name(detail.into()).filter(|_| is(StepKind::Error)),
        }
    }
}

/// One step of the timeline.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Step")]
struct Shown {
    /// Microseconds from the start of the connection.
    at_us: u64,
    /// What happened.
    event: StepKind,
    /// State before, for `state`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "State")]
    from: Option<State>,
    /// State after, for `state`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "State")]
    to: Option<State>,
    /// What the application was told, for `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "&str")]
    errno: Option<&'static str>,
}

impl JsonSchema for Step {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        Shown::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Shown::json_schema(generator)
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.spelled_change() {
            Some(change) if !serializer.is_human_readable() => {
                let mut step = serializer.serialize_struct("Step", 2)?;
                step.serialize_field("at_us", &self.at_us())?;
                step.serialize_field("event", &change)?;
                step.end()
            }
            _ => self.shown().serialize(serializer),
        }
    }
}

/// Text and its length; none where it has to be spelled otherwise.
type Text = ([u8; LONGEST], usize);

const LONGEST: usize = r#""state","from":"NEW_SYN_RECV","to":"NEW_SYN_RECV""#.len();

/// By the detail of a change of state.
static CHANGES: [Text; 256] = {
    let mut changes = [([0; LONGEST], 0); 256];
    let mut from = 0;
    while from < State::COUNT {
        let mut to = 0;
        while to < State::COUNT {
            let (before, after) = (State::ALL[from], State::ALL[to]);
            changes[(before as usize) << 4 | after as usize] = spell(before, after);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_survives_packing() {
        let step = Step::state(5_400_000_000, 1, 8);
        assert_eq!(
            (step.at_us(), step.event()),
            (5_400_000_000, StepKind::State)
        );
        assert_eq!(step.change(), Some((State::Established, State::CloseWait)));
        assert_eq!(step.errno(), None);
        let error = Step::error(0, 111);
        assert_eq!(
            (error.errno(), error.change()),
            (Some("ECONNREFUSED"), None)
        );
        for &event in StepKind::ALL {
            assert_eq!(Step::new(7, event).event(), event);
        }
    }
}
