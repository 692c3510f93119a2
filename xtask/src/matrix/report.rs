//! What a guest says about itself, line by line, and whether that is as it has to be.
//!
//! Must not know: how a guest is started, how a scenario is played.

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::kernels::Kernel;
use crate::{bench::kernels::Costs, scenario::feature::Feature};

/// One line of a report.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub(super) enum Line {
    /// Once, first.
    Kernel {
        release: String,
        features: Vec<String>,
    },
    /// The tracer on its standard error.
    Said { text: String },
    /// Once for each scenario, and for each of what is tested beside them.
    Test { name: String, outcome: Outcome },
    /// Once, and nothing else but the last: what tracing costs.
    Costs(Costs),
    /// Once, last: whether the guest came to its end, and why not. What is right or wrong in the
    /// lines before is not for the guest to say.
    End { error: Option<String> },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Right,
    Skipped,
    /// With what was wrong.
    Wrong(String),
}

/// What a guest has to report of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Test {
    pub(super) name: &'static str,
    /// Without it the test is to be skipped, and only then.
    pub(super) needs: Option<Feature>,
}

/// A report as it was read.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) release: String,
    pub(super) right: usize,
    pub(super) skipped: Vec<String>,
    pub(super) hooks: Vec<String>,
    pub(super) limits: Vec<String>,
    /// Everything that is not as it has to be; nothing is the aim.
    pub(super) complaints: Vec<String>,
}

/// Holds a report against what is expected of the kernel.
pub(super) fn judge(kernel: &Kernel, tests: &[Test], report: &str) -> Judged {
    let mut judged = Judged::default();
    let mut features = Vec::new();
    let mut heard: Vec<String> = Vec::new();
    let mut ends = 0;
    for text in report.lines().filter(|line| !line.trim().is_empty()) {
        let line = match serde_json::from_str(text.trim()) {
            Ok(line) => line,
            Err(error) => {
                judged.complain(format!(
                    "a line of its report makes no sense ({error}): {text}"
                ));
                continue;
            }
        };
        match line {
            Line::Kernel {
                release,
                features: found,
            } => {
                judged.release = release;
                features = found;
            }
            Line::Said { text } => judged.said(&text),
            Line::Costs(costs) => judged.complain(format!("not asked for: {costs:?}")),
            Line::Test { name, outcome } => {
                match outcome {
                    Outcome::Right => judged.right += 1,
                    Outcome::Skipped => judged.skipped.push(name.clone()),
                    Outcome::Wrong(why) => judged.complain(format!("{name}: {why}")),
                }
                heard.push(name);
            }
            Line::End { error } => {
                ends += 1;
                if let Some(error) = error {
                    judged.complain(format!("the guest stopped: {error}"));
                }
            }
        }
    }
    if ends != 1 {
        judged.complain(format!("{ends} last lines in its report instead of one"));
    }
    let expected: Vec<_> = kernel.features.iter().map(|one| one.name()).collect();
    judged.same("features", &expected, &features);
    judged.same("hooks", &kernel.hooks(), &judged.hooks.clone());
    judged.same("limits", &kernel.limits(), &judged.limits.clone());
    let (playable, skipped): (Vec<&Test>, Vec<&Test>) = tests.iter().partition(|test| {
        let needed = test.needs;
        needed.is_none_or(|feature| kernel.features.contains(&feature))
    });
    let names = |tests: &[&Test]| tests.iter().map(|test| test.name).collect::<Vec<_>>();
    judged.same("skipped", &names(&skipped), &judged.skipped.clone());
    judged.same(
        "tests",
        &[names(&playable), names(&skipped)].concat(),
        &heard,
    );
    judged
}

/// The report of a guest that measured what tracing costs.
pub(super) fn costs(report: &str) -> Result<Costs> {
    let mut costs = None;
    let mut is_whole = false;
    for text in report.lines().filter(|line| !line.trim().is_empty()) {
        match serde_json::from_str(text.trim()).with_context(|| format!("its report: {text}"))? {
            Line::Costs(line) => costs = Some(line),
            Line::End { error: None } => is_whole = true,
            line => bail!("in its report: {line:?}"),
        }
    }
    ensure!(is_whole, "its report has no last line");
    costs.context("its report has no costs")
}

impl Judged {
    fn complain(&mut self, what: String) {
        self.complaints.push(what);
    }

    /// Keeps what the tracer says about the kernel.
    fn said(&mut self, text: &str) {
        let text = text.strip_prefix("upstream-trace: ").unwrap_or(text);
        if let Some(hooks) = text.strip_prefix("attached ") {
            self.hooks.extend(hooks.split(", ").map(str::to_owned));
        } else if text.starts_with("not seen on this host: ")
            || text.starts_with("this kernel has no ")
        {
            self.limits.push(text.to_owned());
        }
    }

    fn same(&mut self, what: &str, expected: &[&str], got: &[String]) {
        let missing: Vec<_> = expected
            .iter()
            .filter(|one| !got.iter().any(|other| other == *one))
            .collect();
        let surplus: Vec<_> = got
            .iter()
            .filter(|one| !expected.contains(&one.as_str()))
            .collect();
        if !missing.is_empty() {
            self.complain(format!("{what}: missing {missing:?}"));
        }
        if !surplus.is_empty() {
            self.complain(format!("{what}: not expected {surplus:?}"));
        }
        if missing.is_empty() && surplus.is_empty() && expected.len() != got.len() {
            self.complain(format!(
                "{what}: {} instead of {}",
                got.len(),
                expected.len()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: Kernel = Kernel {
        name: "0.0",
        suite: "none",
        packages: &[],
        forbids: None,
        instead: &[],
        systemd: None,
        features: &[Feature::Mptcp],
        without: &[],
        limits: &["this kernel has no x"],
    };

    /// A report with nothing wrong: of a test that every kernel can do, and of one that this cannot.
    fn good() -> Vec<Line> {
        let said = |text: &str| Line::Said {
            text: format!("upstream-trace: {text}"),
        };
        vec![
            Line::Kernel {
                release: "0.0.7".into(),
                features: vec!["mptcp".into()],
            },
            said("refused kprobe g (why)"),
            said(&format!("attached {}", KERNEL.hooks().join(", "))),
            said("this kernel has no x"),
            Line::Test {
                name: "plain".into(),
                outcome: Outcome::Right,
            },
            Line::Test {
                name: "every".into(),
                outcome: Outcome::Skipped,
            },
            Line::End { error: None },
        ]
    }

    fn complaints(lines: &[Line]) -> Vec<String> {
        let tests = [("plain", None), ("every", Some(Feature::ResetReasons))];
        let tests = tests.map(|(name, needs)| Test { name, needs });
        let text: Vec<_> = lines
            .iter()
            .map(|line| serde_json::to_string(line).unwrap())
            .collect();
        judge(&KERNEL, &tests, &text.join("\r\n")).complaints
    }

    #[test]
    fn a_good_report_leaves_nothing_to_say() {
        assert_eq!(complaints(&good()), [""; 0]);
    }

    /// Without any one of its lines that matter a report is not good.
    #[test]
    fn nothing_may_be_missing() {
        for index in [0, 2, 3, 4, 5, 6] {
            let mut lines = good();
            let taken = lines.remove(index);
            assert_ne!(complaints(&lines), [""; 0], "without {taken:?}");
        }
    }

    #[test]
    fn nothing_may_be_there_twice() {
        for index in [2, 3, 4, 6] {
            let (mut lines, mut again) = (good(), good());
            lines.push(again.remove(index));
            assert_ne!(complaints(&lines), [""; 0], "{:?} twice", lines.last());
        }
    }

    #[test]
    fn what_this_kernel_cannot_do_is_not_right() {
        let mut lines = good();
        lines[5] = Line::Test {
            name: "every".into(),
            outcome: Outcome::Right,
        };
        assert_eq!(complaints(&lines).len(), 1);
    }

    #[test]
    fn a_skip_has_to_be_earned() {
        let mut lines = good();
        lines[4] = Line::Test {
            name: "plain".into(),
            outcome: Outcome::Skipped,
        };
        assert_eq!(complaints(&lines).len(), 1);
    }

    #[test]
    fn costs_are_of_a_guest_that_came_to_its_end() {
        let [measured, end, stopped] = [
            r#"{"line":"costs","release":"0.0.7","ours":1.0,"tcplife":2.0,"records":4,"lost":0}"#,
            r#"{"line":"end","error":null}"#,
            r#"{"line":"end","error":"3 lost"}"#,
        ];
        assert!(costs(&[measured, end].join("\r\n")).is_ok());
        for wrong in [
            &[measured][..],
            &[end],
            &[measured, stopped],
            &[stopped],
            &[],
        ] {
            assert!(costs(&wrong.join("\r\n")).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_guest_that_stopped_failed() {
        let mut lines = good();
        lines[6] = Line::End {
            error: Some("no veth".into()),
        };
        assert_eq!(complaints(&lines), ["the guest stopped: no veth"]);
    }
}
