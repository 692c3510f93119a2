//! The run of `upstream-trace explain`: line by line, until the logs end or it is told to stop.
//!
//! Records are read as far ahead as the line at hand needs, and forgotten `--window` behind it. Must not know: formats, how lines come
//! into order, how a line and a record are joined, how an answer is written.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    LATE,
    answers::Answers,
    join::{Asked, Join, MOST_LOGS},
    log::Failed,
    merge::{Counts, Merge},
    records::{Lack, Records},
    report::{Explained, ExplainedType},
    source,
};
use crate::{
    clock,
    exit::{Code, Failure},
    record::{Schema, Timestamp},
    stop::{self, Stop},
};

/// Lines between two looks at what can be answered.
const BATCH: usize = 256;
/// Looks at the records when told to stop: enough for what was written just now, not for all of a long file.
const PARTING: usize = 64;
/// Between two looks at files that may have grown.
const TICK: Duration = Duration::from_millis(50);

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    pub records: PathBuf,
    /// Empty: standard input.
    pub logs: Vec<PathBuf>,
    pub follow: bool,
    pub text: bool,
    /// How long records are kept, and how far lines may be out of order.
    pub window: Duration,
    /// Name of the proxy's processes.
    pub process: Option<String>,
    /// Addresses of servers that a log names.
    pub servers: Vec<(String, SocketAddr)>,
}

/// Explains until the logs end, or until told to stop.
pub fn run(settings: Settings) -> Result<(), Failure> {
    let runtime = stop::runtime()?;
    let run = Run::open(settings)?;
    match runtime.block_on(run.drive()) {
        // The reader of the output is gone.
        Err(failure) if failure.code == Code::Ok => Ok(()),
        ended => ended,
    }
}

#[derive(Debug)]
struct Run {
    merge: Merge,
    records: Records,
    join: Join,
    answers: Answers,
    follow: bool,
    /// How long records are kept, nanoseconds.
    keep: u64,
    servers: Vec<(String, SocketAddr)>,
    /// The latest time of a line.
    now: u64,
    /// Up to when records are needed for lines that wait.
    need: u64,
    /// The time of the lines when answers were last looked for.
    answered: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Busy,
    Idle,
    Done,
}

impl Run {
    fn open(settings: Settings) -> Result<Self, Failure> {
        let Settings {
            records,
            mut logs,
            follow,
            text,
            window,
            process,
            servers,
        } = settings;
        if logs.is_empty() {
            logs.push("-".into());
        }
        let inputs = logs.iter().chain([&records]);
        if inputs.filter(|path| source::is_stdin(path)).count() > 1 {
            let message = "standard input can be the records (--records -) or one log (none or -): name a file for the other";
            return Err(Failure::new(Code::Usage, message));
        }
        if logs.len() > MOST_LOGS {
            let given = logs.len();
            let message = format!(
                "{given} logs are more than the {MOST_LOGS} that fit into one run: start several"
            );
            return Err(Failure::new(Code::Usage, message));
        }
        let keep = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        let names = logs.iter().map(|path| path.display().to_string());
        Ok(Self {
            records: Records::open(&records, follow)?,
            merge: Merge::open(&logs, follow)?,
            join: Join::new(process, keep),
            answers: Answers::new(names.collect(), text),
            follow,
            keep,
            servers,
            now: 0,
            need: 0,
            answered: 0,
        })
    }

    async fn drive(mut self) -> Result<(), Failure> {
        let mut stop = Stop::listen()?;
        loop {
            let progress = self.step()?;
            if progress == Progress::Done {
                break;
            }
            let rest = async {
                if progress == Progress::Idle {
                    tokio::time::sleep(TICK).await;
                } else {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                () = stop.asked() => break,
                () = rest => {}
            }
        }
        self.finish()
    }

    /// Merges and joins some lines.
    fn step(&mut self) -> Result<Progress, Failure> {
        for _ in 0..BATCH {
            // No line goes past records that it may need.
            if self.records.lacking.is_some() {
                self.answer(self.now)?;
                if self.records.lacking.is_some() {
                    return self.wait();
                }
            }
            let Some(line) = self.merge.next(self.now)? else {
                return self.caught_up();
            };
            if self.merge.is_ahead(&line) {
                if let Some(failed) = line.failed {
                    self.join.refuse(Asked {
                        log: line.log,
                        line: line.number,
                        failed,
                    });
                }
                continue;
            }
            // Answer what waits before its records are forgotten.
            if line.time > self.answered.saturating_add(self.keep / 4) {
                self.answer(line.time)?;
                if self.records.lacking.is_some() {
                    self.merge.put_back(line);
                    return self.wait();
                }
            }
            self.now = self.now.max(line.time);
            if let Some(failed) = line.failed {
                self.ask(line.log, line.number, failed);
            }
        }
        self.answer(self.now)?;
        Ok(Progress::Busy)
    }

    fn ask(&mut self, log: usize, line: u64, mut failed: Box<Failed>) {
        if let (None, Some(name)) = (failed.upstream, &failed.name) {
            let known = self.servers.iter().find(|(known, _)| known == name);
            failed.upstream = known.map(|(_, address)| *address);
        }
        self.need = self.need.max(Join::needs(&failed));
        self.join.ask(Asked { log, line, failed });
    }

    /// No more lines for now.
    fn caught_up(&mut self) -> Result<Progress, Failure> {
        if self.merge.is_amid() {
            return Ok(Progress::Busy);
        }
        let mut lines = self.now;
        if self.follow {
            let now = clock::of_day();
            // Records that come meanwhile are read at once, or a file that is cut off between two lines of the log would not be noticed.
            self.need = self.need.max(now);
            lines = lines.max(now.saturating_sub(LATE));
        }
        self.answer(lines)?;
        if self.records.lacking.is_none() && self.merge.is_over() {
            return Ok(Progress::Done);
        }
        self.wait()
    }

    /// For more lines or records.
    fn wait(&mut self) -> Result<Progress, Failure> {
        if self.records.lacking == Some(Lack::Unread) {
            return Ok(Progress::Busy);
        }
        self.answers.flush()?;
        Ok(Progress::Idle)
    }

    /// Reads the records that lines need, answers, forgets. All lines before `lines` are known.
    fn answer(&mut self, lines: u64) -> Result<(), Failure> {
        let until = self.need.max(self.now);
        self.answer_with(until, lines)?;
        if self.records.lacking.is_none() && self.join.lacks() > self.records.seen {
            self.answer_with(self.join.lacks(), lines)?;
        }
        // Lines that are open for want of records need all of theirs.
        if self.records.lacking.is_none() {
            self.answered = lines;
            self.join.expire(lines);
        }
        Ok(())
    }

    fn answer_with(&mut self, until: u64, lines: u64) -> Result<(), Failure> {
        let oldest = self.now.saturating_sub(self.keep);
        self.records.advance(until, oldest, &mut self.join.window)?;
        if self.records.lacking.is_some() {
            return Ok(());
        }
        let mut answers = Vec::new();
        self.join
            .answer(self.records.seen, lines, |answer| answers.push(answer));
        self.answers.write(&answers, &self.join.window)
    }

    fn finish(mut self) -> Result<(), Failure> {
        let time = Timestamp(self.now);
        for _ in 0..PARTING {
            self.answer(self.now)?;
            if self.records.lacking != Some(Lack::Unread) {
                break;
            }
        }
        // What still waits gets no more records and no more lines. Nobody knows whether it is among those that are left unread.
        if self.records.lacking != Some(Lack::Unread) {
            self.records.seen = u64::MAX;
            self.now = u64::MAX;
            self.answer(u64::MAX)?;
        }
        let Counts {
            failed,
            fine,
            other,
            unknown,
        } = self.merge.counts;
        self.answers.close(&Explained {
            schema: Schema,
            kind: ExplainedType,
            time,
            seq: self.answers.seq(),
            lines: failed + fine + other + unknown,
            failed,
            fine,
            other,
            unknown,
            found: self.answers.found,
            records: self.records.count,
            records_unknown: self.records.unknown,
            records_given_up: self.join.window.given_up,
        })?;
        self.records.are_some_of_all()?;
        self.merge.are_logs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        explain::merge::tests::{SECOND, fine},
        output::samples::TIME,
    };

    fn settings(records: PathBuf, logs: Vec<PathBuf>, follow: bool) -> Settings {
        Settings {
            records,
            logs,
            follow,
            text: false,
            window: Duration::from_secs(5),
            process: None,
            servers: Vec::new(),
        }
    }

    #[test]
    fn standard_input_is_opened_once() {
        for logs in [&[][..], &["-"], &["/dev/null", "-"]] {
            let logs = logs.iter().map(PathBuf::from).collect();
            let refused = Run::open(settings("-".into(), logs, false)).unwrap_err();
            assert_eq!(refused.code, Code::Usage);
        }
        assert!(Run::open(settings("-".into(), vec!["/dev/null".into()], false)).is_ok());
        assert!(Run::open(settings("/dev/null".into(), Vec::new(), false)).is_ok());
    }

    #[test]
    fn more_logs_than_fit_are_refused() {
        let open = |count| {
            let logs = vec!["/dev/null".into(); count];
            Run::open(settings("/dev/null".into(), logs, false))
        };
        assert!(open(MOST_LOGS).is_ok());
        assert_eq!(open(MOST_LOGS + 1).unwrap_err().code, Code::Usage);
    }

    /// How far the run has come, in seconds behind `start`, when it has read lines of these times.
    fn reached(follow: bool, start: u64, seconds: &[u64]) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let [records, log] = ["run.json", "access.log"].map(|name| dir.path().join(name));
        std::fs::write(&records, "").unwrap();
        std::fs::write(&log, fine(start, seconds)).unwrap();
        let mut run = Run::open(settings(records, vec![log], follow)).unwrap();
        while run.step().unwrap() == Progress::Busy {}
        assert_eq!(run.merge.counts.fine, seconds.len() as u64);
        run.now.saturating_sub(start) / SECOND
    }

    #[test]
    fn a_line_that_is_hours_ahead_does_not_lead_the_others() {
        let start = TIME.0 / SECOND * SECOND;
        assert_eq!(reached(false, start, &[0, 7_200, 9]), 9);
        assert_eq!(reached(false, start, &[7_200, 9]), 9);
        // A quiet time, an order that is not quite right, and the last of all.
        assert_eq!(reached(false, start, &[0, 7_200, 7_201]), 7_201);
        assert_eq!(reached(false, start, &[0, 70, 9]), 70);
        assert_eq!(reached(false, start, &[0, 7_200]), 7_200);
        let now = clock::of_day() / SECOND * SECOND;
        assert_eq!(reached(true, now - 10 * SECOND, &[0, 3_600, 9]), 9);
        assert_eq!(reached(true, now - 10 * SECOND, &[0, 3_600]), 0);
    }
}
