//! Events that the kernel kept from their hooks: those inside a hook that they interrupt and, on some hardened
//! hosts, those on top of init's tasks. What they excuse, and how many of them are believed.

use std::fmt::Display;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// Plays of one thing at most.
const ATTEMPTS: usize = 3;

/// How many there were by the tracer's own last account. Kernels skip less than one in a thousand: a tracer that
/// counts more of them is wrong, and nothing is excused.
pub fn missed(stats: &Value) -> Result<u64> {
    let missed = stats["lost"]["missed"].as_u64();
    let (missed, seen) = missed.zip(stats["seen"].as_u64()).context("no account")?;
    ensure!(
        missed <= 10 + seen / 1000,
        "{missed} events of {seen} were kept from their hooks"
    );
    Ok(missed)
}

/// The most that there can have been: the account has the larger of two counts, the kernel's and the join's, and each may have
/// what the other lacks.
pub fn missed_at_most(stats: &Value) -> Result<u64> {
    Ok(2 * missed(stats)?)
}

/// Plays until nothing is wrong, but again only where the tracer has counted what was kept from it. `play` returns what is
/// wrong beside the tracer's account.
pub fn again<W: Display>(mut play: impl FnMut() -> Result<Option<(W, Value)>>) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let Some((wrong, stats)) = play()? else {
            return Ok(());
        };
        let missed = missed(&stats)?;
        ensure!(missed > 0, "{wrong}");
        println!("{missed} events were kept from their hooks; {wrong}");
    }
    bail!("events were kept from their hooks {ATTEMPTS} times in a row");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plays(missed: u64, wrong: usize) -> (usize, Result<()>) {
        let mut plays = 0;
        let outcome = again(|| {
            plays += 1;
            let stats = json!({"seen": 100, "lost": {"missed": missed}});
            Ok((plays <= wrong).then_some(("wrong", stats)))
        });
        (plays, outcome)
    }

    #[test]
    fn only_what_was_counted_is_played_again() {
        for (missed, wrong, attempts, right) in [
            (0, 0, 1, true),
            (0, 1, 1, false),
            (1, 2, 3, true),
            (1, 3, 3, false),
            (11, 1, 1, false),
        ] {
            let (plays, outcome) = plays(missed, wrong);
            assert_eq!(
                (plays, outcome.is_ok()),
                (attempts, right),
                "{missed} {wrong}"
            );
        }
    }
}
