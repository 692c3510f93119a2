//! Two jobs at once, on two CPUs.
//!
//! Must not know: which.

use std::{
    io, panic,
    sync::Barrier,
    thread::{self, Scope, ScopedJoinHandle},
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Does one job here and the other on another CPU.
///
/// The scheduler may leave a new thread on the CPU of its maker while others are idle, more so in a virtual machine, where idle
/// CPUs count as taken away (`available_idle_cpu`); it then runs when a tick takes that CPU from its maker. So it is sent to
/// another at once, and its maker is held where it is meanwhile: itself a thread of its own, because what a thread has once
/// been told to run on limits it for ever (`user_cpus_ptr`).
pub(super) fn beside<T: Send, O: Send>(
    theirs: impl FnOnce() -> T + Send,
    ours: impl FnOnce() -> O + Send,
) -> io::Result<(T, O)> {
    let both = || {
        let (all, here, others) = cpus();
        let gone = Barrier::new(2);
        stay_on(&here);
        thread::scope(|scope| {
            let theirs = spawn(scope, || {
                stay_on(&others);
                gone.wait();
                theirs()
            })?;
            gone.wait();
            stay_on(&all);
            let ours = ours();
            Ok((join(theirs), ours))
        })
    };
    thread::scope(|scope| join(spawn(scope, both)?))
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    job: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    thread::Builder::new().spawn_scoped(scope, job)
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    let done = thread.join();
    done.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Those that this thread may run on; of them the one that it runs on, and the others. Empty where that cannot be told.
fn cpus() -> (CpuSet, CpuSet, CpuSet) {
    let all = sched_getaffinity(None).unwrap_or_default();
    let cpu = sched_getcpu();
    let (mut here, mut others) = (CpuSet::new(), all);
    // Where a machine has more than a set can hold, `all` is empty and the CPU may be beyond it.
    if cpu < CpuSet::MAX_CPU && all.is_set(cpu) {
        here.set(cpu);
        others.unset(cpu);
    }
    (all, here, others)
}

/// An empty set changes nothing: the kernel refuses it.
fn stay_on(cpus: &CpuSet) {
    let _refused = sched_setaffinity(None, cpus);
}

#[cfg(test)]
mod tests {
    use std::{
        hint,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    #[test]
    fn on_two_cpus_where_there_are_two() {
        let allowed = || sched_getaffinity(None).unwrap();
        let before = allowed();
        for _ in 0..50 {
            let met = AtomicBool::new(false);
            let theirs = || {
                met.store(true, Ordering::Relaxed);
                sched_getcpu()
            };
            // Does not wait: whoever is woken may be so on another CPU.
            let ours = || {
                while !met.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
                (sched_getcpu(), allowed())
            };
            let (theirs, (ours, while_working)) = beside(theirs, ours).unwrap();
            assert!(before.count() == 1 || theirs != ours, "both on {ours}");
            assert!(while_working == before && allowed() == before);
        }
    }
}
