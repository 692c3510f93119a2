//! Which records are printed: `--flagged`, `--failed`, `--verdict CODE`, `--ignore CODE`.
//!
//! Must not know: how they are printed. What is not selected is still counted, elsewhere.

use crate::record::{Connection, Direction, Flag, StrayReset, Verdict};

/// What was asked for; the default prints everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only records with a flag.
    pub flagged: bool,
    /// Only records whose verdict is not `ok`.
    pub failed: bool,
    /// Only these verdicts, if any is given.
    pub verdicts: Vec<Verdict>,
    /// Never these verdicts.
    pub ignored: Vec<Verdict>,
}

impl Selection {
    /// Whether a connection is printed: it has to satisfy everything that was asked for.
    pub fn connection(&self, record: &Connection<'_>) -> bool {
        self.admits(Some(record.verdict), record.flag)
    }

    /// Whether a reset that belongs to no connection is printed. It has no verdict to ask for, and one that was sent always
    /// is a failure; one that was received ended no connection.
    pub fn reset(&self, record: &StrayReset<'_>) -> bool {
        let failed = record.direction == Direction::Sent;
        (failed || !self.failed) && self.admits(None, record.flag)
    }

    fn admits(&self, verdict: Option<Verdict>, flag: Option<Flag>) -> bool {
        let among = |list: &[Verdict]| verdict.is_some_and(|verdict| list.contains(&verdict));
        (!self.flagged || flag.is_some())
            && (!self.failed || verdict != Some(Verdict::Ok))
            && (self.verdicts.is_empty() || among(&self.verdicts))
            && !among(&self.ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    fn connection(verdict: Verdict, flag: Option<Flag>) -> Connection<'static> {
        Connection {
            verdict,
            flag,
            ..samples::healthy()
        }
    }

    /// Which of these are printed: healthy, timed out, refused (flagged), probe (flagged), stray reset, flagged stray reset.
    fn printed(selection: &Selection) -> [bool; 6] {
        let flag = Some(Flag::ResetBeforePayload);
        [
            selection.connection(&connection(Verdict::Ok, None)),
            selection.connection(&connection(Verdict::ConnectTimeout, None)),
            selection.connection(&connection(Verdict::Refused, flag)),
            selection.connection(&connection(Verdict::Probe, flag)),
            selection.reset(&StrayReset {
                flag: None,
                ..samples::stray()
            }),
            selection.reset(&StrayReset {
                flag,
                ..samples::stray()
            }),
        ]
    }

    #[test]
    fn a_reset_that_ended_no_connection_is_no_failure() {
        let selection = Selection {
            failed: true,
            ..Selection::default()
        };
        let received = StrayReset {
            direction: Direction::Received,
            ..samples::stray()
        };
        assert!(selection.reset(&samples::stray()) && !selection.reset(&received));
        assert!(Selection::default().reset(&received));
    }

    #[test]
    fn everything_by_default() {
        assert_eq!(printed(&Selection::default()), [true; 6]);
    }

    #[test]
    fn each_alone() {
        let flagged = Selection {
            flagged: true,
            ..Selection::default()
        };
        assert_eq!(printed(&flagged), [false, false, true, true, false, true]);
        let failed = Selection {
            failed: true,
            ..Selection::default()
        };
        assert_eq!(printed(&failed), [false, true, true, true, true, true]);
        let verdicts = Selection {
            verdicts: vec![Verdict::Ok, Verdict::Refused],
            ..Selection::default()
        };
        assert_eq!(printed(&verdicts), [true, false, true, false, false, false]);
        let ignored = Selection {
            ignored: vec![Verdict::Ok, Verdict::Probe],
            ..Selection::default()
        };
        assert_eq!(printed(&ignored), [false, true, true, false, true, true]);
    }

    #[test]
    fn together_all_have_to_agree_and_ignore_wins() {
        let selection = Selection {
            flagged: true,
            failed: true,
            verdicts: vec![
                Verdict::Ok,
                Verdict::ConnectTimeout,
                Verdict::Refused,
                Verdict::Probe,
            ],
            ignored: vec![Verdict::Probe],
        };
        assert_eq!(
            printed(&selection),
            [false, false, true, false, false, false]
        );
    }
}
