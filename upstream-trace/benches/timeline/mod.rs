//! Steps of a timeline, for records made up in benches.

use upstream_trace::{
    record::{Step, StepKind},
    tcp::State,
};

/// A step; for a change of state from where to where.
pub(crate) const fn step(at_us: u64, event: StepKind, states: Option<(State, State)>) -> Step {
    let (from, to) = match states {
        Some((from, to)) => (Some(from), Some(to)),
        None => (None, None),
    };
    Step {
        at_us,
        event,
        from,
        to,
        errno: None,
    }
}
