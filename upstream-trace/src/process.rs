//! Processes, named once and shared: the table of who was seen.
//!
//! A process is its pid, its start, its name, uid and cgroup and whether it is wanted, so that neither a reused pid nor an `exec` by
//! another name nor `setuid` nor a move to another cgroup mixes two up. What the kernel's records do not carry comes from a [`Describe`].
//! Must not know: /proc, connections.

use std::{
    hash::{Hash, Hasher},
    rc::Rc,
};

use hashbrown::HashMap;
use upstream_trace_common::event::{self, Actor, NO_UID};

use crate::record::{self, Attribution, Spelled};

/// What can be said of a process beyond its pid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Name of the process.
    pub comm: Option<String>,
    /// Path of the executable.
    pub exe: Option<String>,
    /// Real uid.
    pub uid: Option<u32>,
    /// cgroup v2 id.
    pub cgroup_id: Option<u64>,
    /// Container id, from the cgroup path.
    pub container_id: Option<String>,
    /// Uid of the Kubernetes pod, from the cgroup path.
    pub pod_uid: Option<String>,
}

/// Looks a process up where it still is.
pub trait Describe {
    /// Details of the process `pid` that started `start` nanoseconds after boot (0: not known); all
    /// `None` where it is gone or the pid is another's by now.
    fn describe(&mut self, pid: u32, start: u64) -> Details;

    /// How many file descriptors the same process has and may have; `None` also where that may not be read.
    fn descriptors(&mut self, pid: u32, start: u64) -> Option<record::Descriptors>;
}

/// A process that was seen.
#[derive(Debug)]
pub struct Process {
    /// Process id (thread group).
    pub pid: u32,
    /// Nanoseconds after boot; 0: not known.
    pub start: u64,
    /// Its sockets are wanted, or nobody asked.
    pub wanted: bool,
    /// The rest.
    pub details: Details,
    /// For each attribution, how the output spelled it.
    pub spelled: [Spelled; Attribution::ALL.len()],
}

impl Process {
    /// As it is printed.
    pub fn record(&self, attribution: Attribution) -> record::Process<'_> {
        let Details {
            comm,
            exe,
            uid,
            cgroup_id,
            container_id,
            pod_uid,
        } = &self.details;
        record::Process {
            pid: self.pid,
            comm: comm.as_deref(),
            exe: exe.as_deref(),
            uid: *uid,
            cgroup_id: *cgroup_id,
            container_id: container_id.as_deref(),
            pod_uid: pod_uid.as_deref(),
            attribution,
            spelled: self.spelled.get(attribution as usize),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    pid: u32,
    start: u64,
    comm: [u64; 2],
    uid: u32,
    cgroup_id: u64,
    wanted: bool,
}

/// Two that differ in the rest only are rare.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.start ^ u64::from(self.pid).rotate_left(32));
    }
}

/// Every process that was seen and is still referred to, and some that were.
#[derive(Debug, Default)]
pub struct Processes {
    known: HashMap<Key, Rc<Process>>,
}

/// More than the processes of a node that use the network at once; beyond it those that no connection
/// refers to are forgotten.
const KEPT: usize = 8192;

impl Processes {
    /// The process of a record's actor; `None` for nobody and for the idle task.
    pub fn seen(&mut self, actor: &Actor, describe: &mut impl Describe) -> Option<Rc<Process>> {
        if actor.tgid == 0 {
            return None;
        }
        let key = Key {
            pid: actor.tgid,
            start: actor.start,
            comm: actor.comm,
            uid: actor.uid,
            cgroup_id: actor.cgroup_id,
            wanted: actor.wanted != 0,
        };
        if let Some(process) = self.known.get(&key) {
            return Some(Rc::clone(process));
        }
        let mut details = describe.describe(actor.tgid, actor.start);
        // What the kernel said at the event is truer than what /proc says now.
        if let Some(comm) = name(actor.comm) {
            if details.comm.as_ref() != Some(&comm) {
                // It has become another program meanwhile, or so it seems.
                details.exe = None;
            }
            details.comm = Some(comm);
        }
        if actor.uid != NO_UID {
            details.uid = Some(actor.uid);
        }
        if actor.cgroup_id != 0 {
            details.cgroup_id = Some(actor.cgroup_id);
        }
        if self.known.len() >= KEPT {
            self.known
                .retain(|_, process| Rc::strong_count(process) > 1);
        }
        let process = Rc::new(Process {
            pid: actor.tgid,
            start: actor.start,
            wanted: key.wanted,
            details,
            spelled: Default::default(),
        });
        self.known.insert(key, Rc::clone(&process));
        Some(process)
    }
}

/// A NUL-padded name; `None` where there is none. Bytes that are not UTF-8 are replaced.
fn name(words: [u64; 2]) -> Option<String> {
    let bytes = event::bytes(words);
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(bytes.get(..end)?);
    (!text.is_empty()).then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Proc;

    impl Describe for Proc {
        fn describe(&mut self, _pid: u32, _start: u64) -> Details {
            Details {
                comm: Some("nginx".to_owned()),
                exe: Some("/bin/x".to_owned()),
                ..Details::default()
            }
        }

        fn descriptors(&mut self, _pid: u32, _start: u64) -> Option<record::Descriptors> {
            None
        }
    }

    fn actor(tgid: u32, start: u64, comm: &[u8; 16]) -> Actor {
        let (a, b) = comm.split_at(8);
        let words = [a, b].map(|half| u64::from_ne_bytes(half.try_into().unwrap()));
        Actor {
            tgid,
            start,
            comm: words,
            uid: NO_UID,
            ..Actor::default()
        }
    }

    #[test]
    fn the_kernels_name_wins_and_nobody_is_none() {
        let mut processes = Processes::default();
        let process = processes
            .seen(&actor(7, 1, b"nginx\0\0\0\0\0\0\0\0\0\0\0"), &mut Proc)
            .unwrap();
        assert_eq!(process.details.comm.as_deref(), Some("nginx"));
        assert_eq!(process.details.exe.as_deref(), Some("/bin/x"));
        assert_eq!(process.details.uid, None);
        let before_exec = processes
            .seen(&actor(7, 1, b"bash\0\0\0\0\0\0\0\0\0\0\0\0"), &mut Proc)
            .unwrap();
        assert_eq!(before_exec.details.comm.as_deref(), Some("bash"));
        assert_eq!(before_exec.details.exe, None);
        assert!(processes.seen(&actor(0, 0, &[0; 16]), &mut Proc).is_none());
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let mut processes = Processes::default();
        let first = processes
            .seen(&actor(7, 1, &[b'a'; 16]), &mut Proc)
            .unwrap();
        let again = processes
            .seen(&actor(7, 1, &[b'a'; 16]), &mut Proc)
            .unwrap();
        let other = processes
            .seen(&actor(7, 2, &[b'a'; 16]), &mut Proc)
            .unwrap();
        assert!(Rc::ptr_eq(&first, &again));
        assert!(!Rc::ptr_eq(&first, &other));
    }

    #[test]
    fn those_nobody_refers_to_are_forgotten() {
        let mut processes = Processes::default();
        let kept = processes
            .seen(&actor(1, 1, &[b'k'; 16]), &mut Proc)
            .unwrap();
        for pid in 2..=u32::try_from(3 * KEPT).unwrap() {
            processes.seen(&actor(pid, 1, &[b'x'; 16]), &mut Proc);
        }
        assert!(processes.known.len() <= KEPT);
        let again = processes
            .seen(&actor(1, 1, &[b'k'; 16]), &mut Proc)
            .unwrap();
        assert!(Rc::ptr_eq(&kept, &again));
    }
}
