//! What this process may do: reads its capabilities, and gives up those that it no longer needs.
//!
//! They are a thread's own: to be given up before another thread is started. Must not know: what a capability is needed for once the hooks are attached.

use std::{fmt, io};

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Linux capabilities that the tracer has a use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// Allows giving up the bounding set.
    Setpcap = 8,
    /// Allows reading `/proc/PID/exe` of other users' processes.
    SysPtrace = 19,
    /// Stands for the two below.
    SysAdmin = 21,
    /// Tracing.
    Perfmon = 38,
    /// Programs and maps.
    Bpf = 39,
}

/// What tracing takes, and all of it.
pub const NEEDED: [Capability; 2] = [Capability::Bpf, Capability::Perfmon];

impl Capability {
    const ALL: [Self; 5] = [
        Self::Setpcap,
        Self::SysPtrace,
        Self::SysAdmin,
        Self::Perfmon,
        Self::Bpf,
    ];

    /// As the kernel's headers spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Setpcap => "CAP_SETPCAP",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of capabilities, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u64);

impl FromIterator<Capability> for Capabilities {
    fn from_iter<T: IntoIterator<Item = Capability>>(capabilities: T) -> Self {
        let bits = capabilities.into_iter().map(|one| 1 << one as u8);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

impl Capabilities {
    /// What this thread may do now.
    pub fn effective() -> io::Result<Self> {
        Sets::get().map(|sets| sets.effective)
    }

    pub fn has(self, capability: Capability) -> bool {
        self.0 >> capability as u8 & 1 == 1
    }

    /// What is lacking to load and attach tracing programs. `CAP_SYS_ADMIN` stands for both: the
    /// kernel takes it wherever it asks for the two newer ones (`bpf_capable`, `perfmon_capable`).
    pub fn missing(self) -> impl Iterator<Item = Capability> {
        NEEDED
            .into_iter()
            .filter(move |&needed| !self.has(needed) && !self.has(Capability::SysAdmin))
    }

    /// Those in it that the tracer has a use for.
    pub fn known(self) -> impl Iterator<Item = Capability> {
        Capability::ALL
            .into_iter()
            .filter(move |&one| self.has(one))
    }

    fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn either(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The sets of a thread that are set together.
#[derive(Clone, Copy, Debug)]
struct Sets {
    effective: Capabilities,
    permitted: Capabilities,
}

impl Sets {
    fn get() -> io::Result<Self> {
        let sets = capabilities(None)?;
        let of = |set: CapabilitySet| Capabilities(set.bits());
        Ok(Self {
            effective: of(sets.effective),
            permitted: of(sets.permitted),
        })
    }

    /// What a program started from here would inherit becomes nothing.
    fn set(self) -> io::Result<()> {
        let of = |set: Capabilities| CapabilitySet::from_bits_retain(set.0);
        let sets = CapabilitySets {
            effective: of(self.effective),
            permitted: of(self.permitted),
            inheritable: CapabilitySet::empty(),
        };
        Ok(set_capabilities(None, sets)?)
    }
}

/// Gives up every capability for good, and that any program started from here could ever gain one. `always`
/// stays where it is held, and so does `else_needed` where `works`, asked without it, says no. Returns what is left.
pub fn give_up(
    always: &[Capability],
    else_needed: &[Capability],
    works: impl FnOnce() -> bool,
) -> io::Result<Capabilities> {
    let held = Sets::get()?;
    let of = |list: &[Capability]| held.effective.both(list.iter().copied().collect());
    let least = of(always);
    Sets {
        effective: least,
        ..held
    }
    .set()?;
    let kept = if works() {
        least
    } else {
        least.either(of(else_needed))
    };
    if held.effective.has(Capability::Setpcap) {
        held.set()?;
        bound(kept)?;
    }
    Sets {
        effective: kept,
        permitted: kept,
    }
    .set()?;
    set_no_new_privs(true)?;
    Ok(kept)
}

/// Takes everything else out of the bounding set.
fn bound(kept: Capabilities) -> io::Result<()> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(one) {
            Ok(true) if kept.0 >> number & 1 == 0 => remove_capability_from_bounding_set(one)?,
            Ok(_) => {}
            // Beyond the kernel's last one it is an error.
            Err(_) => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, thread};

    use super::*;

    fn missing(held: &[Capability]) -> Vec<Capability> {
        let held: Capabilities = held.iter().copied().collect();
        held.missing().collect()
    }

    #[test]
    fn names_missing_capabilities() {
        use Capability::{Bpf, Perfmon, SysAdmin, SysPtrace};
        assert_eq!(missing(&[]), [Bpf, Perfmon]);
        assert_eq!(missing(&[Bpf, SysPtrace]), [Perfmon]);
        assert_eq!(missing(&[Perfmon]), [Bpf]);
        assert_eq!(missing(&[SysAdmin]), []);
        assert_eq!(missing(&NEEDED), []);
        assert_eq!(Bpf.to_string(), "CAP_BPF");
    }

    /// One line of this thread's status.
    fn status(name: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().to_owned()
    }

    #[test]
    fn agrees_with_proc() {
        let effective = Capabilities::effective().unwrap();
        assert_eq!(format!("{:016x}", effective.0), status("CapEff:"));
    }

    /// In a thread of its own, since nothing brings them back.
    #[test]
    fn what_is_given_up_is_gone_in_every_set() {
        let test = || {
            let before = Capabilities::effective().unwrap();
            let asked = [Capability::SysPtrace];
            let kept = give_up(&asked, &[Capability::Bpf], || {
                assert!(!Capabilities::effective().unwrap().has(Capability::Bpf));
                true
            });
            let kept = kept.unwrap();
            assert_eq!(kept, before.both(asked.into_iter().collect()));
            let left = format!("{:016x}", kept.0);
            assert_eq!(
                [status("CapEff:"), status("CapPrm:")],
                [left.clone(), left.clone()]
            );
            assert_eq!(
                [status("CapInh:"), status("CapAmb:")],
                ["0".repeat(16), "0".repeat(16)]
            );
            assert_eq!(status("NoNewPrivs:"), "1");
            if before.has(Capability::Setpcap) {
                assert_eq!(status("CapBnd:"), left);
            }
        };
        thread::spawn(test).join().unwrap();
    }

    #[test]
    fn what_does_not_work_without_is_kept() {
        let test = || {
            let before = Capabilities::effective().unwrap();
            let kept = give_up(&[], &NEEDED, || false).unwrap();
            assert_eq!(kept, before.both(NEEDED.into_iter().collect()));
            assert_eq!(Capabilities::effective().unwrap(), kept);
        };
        thread::spawn(test).join().unwrap();
    }

    /// The unit grants what the code asks for, no more and no less.
    #[test]
    fn the_systemd_unit_grants_what_is_needed() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/upstream-trace.service");
        let unit = fs::read_to_string(path).unwrap();
        let needed: Vec<_> = NEEDED.iter().map(|one| one.name()).collect();
        for key in ["AmbientCapabilities=", "CapabilityBoundingSet="] {
            let lines: Vec<_> = unit
                .lines()
                .filter_map(|line| line.strip_prefix(key))
                .collect();
            let [granted] = lines[..] else {
                panic!("{key} is there {} times", lines.len());
            };
            let mut granted: Vec<_> = granted.split_whitespace().collect();
            granted.sort_unstable();
            assert_eq!(granted, needed, "{key}");
        }
    }
}
