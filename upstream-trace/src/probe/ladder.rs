//! The hooks of one role, tried from the best down until the kernel takes one; its words of those that it refuses are kept.
//!
//! Must not know: what the hooks are for, the maps.

use std::{collections::HashMap, io, sync::OnceLock};

use aya::{
    BtfError,
    programs::{
        BtfTracePoint, FEntry, FExit, Iter, KProbe, Program, ProgramError, kprobe::KProbeError,
    },
};

use super::{
    catalog::{Entry, Kind, Role, Rung},
    targets::Targets,
};
use crate::exit::{Code, Failure};

/// There where the kernel has kprobes.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";

/// What fills a role.
#[derive(Debug)]
pub struct Filled {
    /// The role.
    pub entry: &'static Entry,
    /// The hook; `None`: none was taken.
    pub by: Option<Rung>,
    /// The better ones.
    pub refused: Vec<Refusal>,
}

/// A hook that the kernel did not take.
#[derive(Debug)]
pub struct Refusal {
    /// The hook.
    pub rung: Rung,
    /// The kernel's own words.
    pub why: String,
    /// The system's error number; `None`: it was not asked.
    errno: Option<i32>,
}

/// One role on its way to the best hook that the kernel takes.
pub(super) struct Climb<'a> {
    pub(super) entry: &'static Entry,
    /// What has not been tried, best first.
    left: std::vec::IntoIter<(&'static Rung, Option<&'a mut Program>)>,
    /// What the kernel has loaded.
    loaded: Option<(&'static Rung, &'a mut Program)>,
    refused: Vec<Refusal>,
    trampolines: &'a Trampolines,
}

/// What the kernel said of one trampoline and would say of each: a host that forbids them does so before it looks at
/// the function, and has each attempt in its audit log.
#[derive(Debug, Default)]
pub(super) struct Trampolines {
    /// The kernel's words of the first one.
    forbidden: OnceLock<String>,
}

impl Trampolines {
    /// What is known of a hook without asking.
    fn refusal(&self, rung: &Rung) -> Option<Refusal> {
        let why = self.forbidden.get()?;
        rung.kind.is_of_a_trampoline().then(|| Refusal {
            rung: *rung,
            why: why.clone(),
            errno: Some(libc::EPERM),
        })
    }

    fn learn(&self, refusal: &Refusal) {
        if refusal.rung.kind.is_of_a_trampoline() && refusal.errno == Some(libc::EPERM) {
            // Set already only if both threads asked at once.
            let _same = self.forbidden.set(refusal.why.clone());
        }
    }
}

impl<'a> Climb<'a> {
    pub(super) fn new(
        entry: &'static Entry,
        programs: &mut HashMap<&'a str, &'a mut Program>,
        trampolines: &'a Trampolines,
    ) -> Self {
        let rungs = entry.rungs.iter();
        let left: Vec<_> = rungs
            .map(|rung| (rung, programs.remove(rung.program)))
            .collect();
        Self {
            entry,
            left: left.into_iter(),
            loaded: None,
            refused: Vec::new(),
            trampolines,
        }
    }

    /// Up to the next rung that the kernel loads and that is not known to be `unfit`.
    pub(super) fn load(
        &mut self,
        targets: &Targets,
        unfit: impl Fn(Role, &Rung) -> Option<&'static str>,
    ) {
        let mut fit = Vec::new();
        for (rung, program) in self.left.by_ref() {
            match unfit(self.entry.role, rung) {
                None => fit.push((rung, program)),
                Some(why) => self.refused.push(Refusal {
                    rung: *rung,
                    why: why.to_owned(),
                    errno: None,
                }),
            }
        }
        self.left = fit.into_iter();
        self.next(targets);
    }

    fn next(&mut self, targets: &Targets) {
        for (rung, program) in self.left.by_ref() {
            if let Some(refusal) = self.trampolines.refusal(rung) {
                self.refused.push(refusal);
                continue;
            }
            let result = match program {
                Some(program) => load_program(program, targets, rung).map(|()| program),
                None => Err(ProgramError::NotLoaded),
            };
            match result {
                Ok(program) => {
                    self.loaded = Some((rung, program));
                    return;
                }
                Err(error) => {
                    let refusal = Refusal::new(rung, &error);
                    self.trampolines.learn(&refusal);
                    self.refused.push(refusal);
                }
            }
        }
    }

    pub(super) fn attach(mut self, targets: &Targets) -> Filled {
        let mut by = None;
        while let Some((rung, program)) = self.loaded.take() {
            match attach(program, rung) {
                Ok(()) => {
                    by = Some(*rung);
                    break;
                }
                Err(error) => {
                    self.refused.push(Refusal::new(rung, &error));
                    self.next(targets);
                }
            }
        }
        Filled {
            entry: self.entry,
            by,
            refused: self.refused,
        }
    }
}

impl Filled {
    /// Whether a hook fills this role.
    pub fn fills(&self, role: Role) -> bool {
        self.entry.role == role && self.by.is_some()
    }

    /// What is not seen for want of a better hook, or of any.
    pub fn loss(&self) -> Option<&'static str> {
        self.by.map_or(self.entry.loss, |rung| rung.loss)
    }

    /// Why nothing can be traced, where this is what the tracer cannot do without, or where only the limit of open files kept the
    /// kernel from taking a hook.
    pub(super) fn failure(&self) -> Option<Failure> {
        let mut refused = self.refused.iter();
        let no_descriptor = refused.find_map(|one| Failure::no_descriptor(one.errno));
        if no_descriptor.is_some() {
            return no_descriptor;
        }
        if self.by.is_some() || self.entry.loss.is_some() {
            return None;
        }
        let Refusal { rung, why, errno } = self.refused.last()?;
        let code = match errno {
            Some(libc::EPERM | libc::EACCES) => Code::Privilege,
            _ => Code::Hook,
        };
        let message = format!("the kernel refused {}: {why}", rung.name());
        Some(Failure::new(code, message))
    }
}

impl Refusal {
    fn new(rung: &Rung, error: &ProgramError) -> Self {
        Self {
            rung: *rung,
            why: why(error),
            errno: os_error(error),
        }
    }
}

/// The kernel's own words, without how it was asked.
fn why(error: &ProgramError) -> String {
    let text = match error {
        ProgramError::LoadError { io_error, .. } => io_error.to_string(),
        ProgramError::Btf(BtfError::UnknownBtfTypeName { .. }) => "this kernel has none".to_owned(),
        error => chain(error),
    };
    match text.split_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

fn load_program(program: &mut Program, targets: &Targets, rung: &Rung) -> Result<(), ProgramError> {
    let types = &targets.types();
    match rung.kind {
        Kind::Tracepoint => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(rung.target, types)
        }
        Kind::Fentry => {
            let program: &mut FEntry = program.try_into()?;
            program.load(rung.target, types)
        }
        Kind::Fexit => {
            let program: &mut FExit = program.try_into()?;
            program.load(rung.target, types)
        }
        Kind::Kprobe | Kind::Kretprobe => {
            // Attaching asks for it as well, but only after the kernel has verified the program.
            has_kprobes()?;
            let program: &mut KProbe = program.try_into()?;
            program.load()
        }
        Kind::Iterator => {
            let program: &mut Iter = program.try_into()?;
            program.load(rung.target, types)
        }
    }
}

fn has_kprobes() -> Result<(), KProbeError> {
    match std::fs::metadata(KPROBES) {
        Ok(_) => Ok(()),
        Err(io_error) => Err(KProbeError::FileError {
            filename: KPROBES.into(),
            io_error,
        }),
    }
}

fn attach(program: &mut Program, rung: &Rung) -> Result<(), ProgramError> {
    match rung.kind {
        Kind::Tracepoint => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.attach()?;
        }
        Kind::Fentry => {
            let program: &mut FEntry = program.try_into()?;
            program.attach()?;
        }
        Kind::Fexit => {
            let program: &mut FExit = program.try_into()?;
            program.attach()?;
        }
        Kind::Kprobe | Kind::Kretprobe => {
            let program: &mut KProbe = program.try_into()?;
            program.attach(rung.target, 0)?;
        }
        // Attached anew for each run.
        Kind::Iterator => {}
    }
    Ok(())
}

/// An error and its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = first_line(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = first_line(&error.to_string());
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Without the verifier's log that aya appends, empty or not.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.split(". Verifier output:")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The system's error number behind an error.
pub(super) fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use aya_obj::VerifierLog;

    use super::*;
    use crate::probe::catalog::{CATALOG, Role};

    /// As a role ends where the kernel took no hook.
    fn unfilled(role: Role, errno: i32) -> Filled {
        let entry = CATALOG.iter().find(|entry| entry.role == role).unwrap();
        let refused = entry.rungs.iter().map(|rung| Refusal {
            rung: *rung,
            why: "no".to_owned(),
            errno: Some(errno),
        });
        Filled {
            entry,
            by: None,
            refused: refused.collect(),
        }
    }

    #[test]
    fn only_what_nothing_can_replace_ends_a_run() {
        let states = |errno| unfilled(Role::States, errno).failure().unwrap();
        assert_eq!(
            states(libc::EINVAL).to_string(),
            "the kernel refused tp_btf inet_sock_set_state: no"
        );
        assert_eq!(states(libc::EINVAL).code, Code::Hook);
        assert_eq!(states(libc::EPERM).code, Code::Privilege);
        assert!(unfilled(Role::Connects, libc::EPERM).failure().is_none());
        let by = Some(CATALOG[0].rungs[0]);
        let filled = Filled {
            by,
            ..unfilled(Role::States, libc::EINVAL)
        };
        assert!(filled.failure().is_none());
    }

    #[test]
    fn no_hook_is_done_without_for_want_of_a_descriptor() {
        let failure = unfilled(Role::Connects, libc::EMFILE).failure().unwrap();
        assert_eq!(failure.code, Code::Failure);
        assert!(failure.to_string().contains("ulimit -n"), "{failure}");
    }

    #[test]
    fn a_host_that_forbids_one_trampoline_is_not_asked_for_another() {
        let refused = |kind, errno| {
            let mut rungs = CATALOG.iter().flat_map(|entry| entry.rungs);
            Refusal {
                rung: *rungs.find(|rung| rung.kind == kind).unwrap(),
                why: "no".to_owned(),
                errno: Some(errno),
            }
        };
        let trampolines = Trampolines::default();
        let known = |kind| {
            let known = trampolines.refusal(&refused(kind, 0).rung);
            known.map(|known| (known.rung.kind, known.why, known.errno))
        };
        let both = [Kind::Fentry, Kind::Fexit];

        trampolines.learn(&refused(Kind::Fentry, libc::EINVAL));
        trampolines.learn(&refused(Kind::Tracepoint, libc::EPERM));
        trampolines.learn(&refused(Kind::Kprobe, libc::EPERM));
        assert_eq!(both.map(known), [None, None]);

        trampolines.learn(&refused(Kind::Fexit, libc::EPERM));
        let no = |kind| Some((kind, "no".to_owned(), Some(libc::EPERM)));
        assert_eq!(both.map(known), both.map(no));
        for other in [
            Kind::Tracepoint,
            Kind::Kprobe,
            Kind::Kretprobe,
            Kind::Iterator,
        ] {
            assert_eq!(known(other), None);
        }
    }

    #[test]
    fn refusals_are_the_kernels_own_words() {
        let refused = ProgramError::LoadError {
            io_error: io::Error::from_raw_os_error(libc::EPERM),
            verifier_log: VerifierLog::new(String::new()),
        };
        let rung = &CATALOG[0].rungs[0];
        let refusal = Refusal::new(rung, &refused);
        assert_eq!(refusal.why, "Operation not permitted");
        assert_eq!(refusal.errno, Some(libc::EPERM));
        let unknown = BtfError::UnknownBtfTypeName {
            type_name: "btf_trace_x".to_owned(),
        };
        let refusal = Refusal::new(rung, &unknown.into());
        assert_eq!(refusal.why, "this kernel has none");
        assert_eq!(refusal.errno, None);
    }
}
