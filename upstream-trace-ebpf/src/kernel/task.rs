//! `struct task_struct`: the process behind the current task, or behind one from an iterator.

use core::{array, hint::cold_path};

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf,
    bpf_get_current_uid_gid, generated::bpf_get_current_cgroup_id,
};
use upstream_trace_common::event::{Actor, NO_UID, exit};

use super::{
    cgroup_id, is_under,
    mem::{self, Copied, Direct, Memory, Struct, put_words},
};
use crate::maps::set;

/// `PF_KTHREAD`, `include/linux/sched.h`.
const PF_KTHREAD: u32 = 0x0020_0000;
/// `PF_EXITING`, the same.
const PF_EXITING: u32 = 0x4;
/// The signal in an exit code, as `wait()` has it.
const SIGNAL: u32 = 0x7f;

/// Process id (thread group) of the current task, in the initial pid namespace.
#[inline(always)]
pub fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Whether the current task's cgroup, or one above it, is `wanted`.
#[inline(always)]
pub fn current_is_under(wanted: impl Fn(u64) -> bool) -> bool {
    if set::HAS_CURRENT_TASK_BTF() != 0 {
        // SAFETY: the helper takes no argument.
        let task = unsafe { bpf_get_current_task_btf() };
        Struct::<Direct>::new(task.cast()).is_some_and(|task| task_is_under(task, wanted))
    } else {
        // SAFETY: the helper takes no argument.
        let task = unsafe { bpf_get_current_task() };
        Struct::<Copied>::new(task as *const u8).is_some_and(|task| task_is_under(task, wanted))
    }
}

/// Whether the cgroup of `task`, or one above it, is `wanted`.
#[inline(always)]
pub fn task_is_under<M: Memory>(task: Struct<M>, wanted: impl Fn(u64) -> bool) -> bool {
    task.follow(&mem::TASK_CGROUPS)
        .and_then(|set| set.follow(&mem::CSS_SET_CGROUP))
        .is_some_and(|cgroup| is_under(cgroup, wanted))
}

/// The process that the current task belongs to; whether it is wanted, and whether it comes to its end, is not known here. uid and cgroup by helpers, the rest copied wherever that is allowed: the verifier takes
/// a millisecond or two for each load of a pointer through the current task (see `TcpSock`), each time that it comes by.
#[inline(always)]
pub fn current(actor: &mut Actor) {
    let tgid = current_tgid();
    if Copied::is_allowed() {
        copy_name(actor, tgid);
    } else if set::HAS_CURRENT_TASK_BTF() != 0 {
        cold_path();
        // SAFETY: the helper takes no argument.
        let task = unsafe { bpf_get_current_task_btf() };
        name(actor, Struct::<Direct>::new(task.cast()), tgid);
    } else {
        cold_path();
        name(actor, None::<Struct<Direct>>, tgid);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the gid is in the upper half"
    )]
    let uid = bpf_get_current_uid_gid() as u32;
    actor.uid = uid;
    actor.cgroup_id = if mem::is_present(&mem::TASK_CGROUPS) {
        // SAFETY: the helper takes no argument.
        unsafe { bpf_get_current_cgroup_id() }
    } else {
        // A kernel without cgroups has no such helper either.
        cold_path();
        0
    };
}

/// `task_struct.flags` of the current task: of the thread that runs.
#[inline(always)]
fn current_flags() -> u32 {
    let flags = if set::HAS_CURRENT_TASK_BTF() != 0 {
        // SAFETY: the helper takes no argument.
        let task = unsafe { bpf_get_current_task_btf() };
        Struct::<Direct>::new(task.cast()).and_then(|task| task.get(&mem::TASK_FLAGS))
    } else {
        cold_path();
        // SAFETY: the helper takes no argument.
        let task = unsafe { bpf_get_current_task() };
        Struct::<Copied>::new(task as *const u8).and_then(|task| task.get(&mem::TASK_FLAGS))
    };
    flags.unwrap_or(0)
}

/// How the process of the current task comes to its end, if it does. The thread that runs says that it does, the process by what; the latter is
/// copied, to spare the verifier one more load of a pointer (see [`current`]).
#[inline(always)]
pub fn current_exit() -> u8 {
    if current_flags() & PF_EXITING == 0 {
        return exit::NONE;
    }
    cold_path();
    // SAFETY: the helper takes no argument.
    let task = unsafe { bpf_get_current_task() };
    let code: Option<u32> = Struct::<Copied>::new(task as *const u8).and_then(|task| {
        task.by_way_of(&mem::TASK_SIGNAL)?
            .get(&mem::SIGNAL_EXIT_CODE)
    });
    let signal = (code.unwrap_or(0) & SIGNAL) as u8;
    exit::ENDS + signal
}

/// Nobody: the event does not run in the context of anyone who caused it.
#[inline(always)]
pub fn nobody(actor: &mut Actor) {
    describe(actor, None::<Struct<Direct>>, 0);
}

/// The process of a `task` that is not the current one; whether it is wanted is not known here. Copied wherever that is
/// allowed, for the same reason as [`current`].
#[inline(always)]
pub fn of_task(actor: &mut Actor, task: Struct<Direct>, tgid: u32) {
    if Copied::is_allowed() {
        describe(actor, Struct::<Copied>::new(task.address()), tgid);
    } else {
        cold_path();
        describe(actor, Some(task), tgid);
    }
}

#[inline(always)]
fn describe<M: Memory>(actor: &mut Actor, task: Option<Struct<M>>, tgid: u32) {
    name(actor, task, tgid);
    let uid = task.and_then(|task| task.by_way_of(&mem::TASK_CRED)?.get(&mem::CRED_UID));
    actor.uid = uid.unwrap_or(NO_UID);
    let cgroup = task
        .and_then(|task| {
            task.by_way_of(&mem::TASK_CGROUPS)?
                .by_way_of(&mem::CSS_SET_CGROUP)
        })
        .and_then(cgroup_id);
    actor.cgroup_id = cgroup.unwrap_or(0);
}

/// Id, name and start: the group leader's, a thread's own name is not the process's.
#[inline(always)]
fn name<M: Memory>(actor: &mut Actor, task: Option<Struct<M>>, tgid: u32) {
    let leader = task.and_then(|task| task.by_way_of(&mem::TASK_LEADER));
    let word = |skip| {
        leader
            .and_then(|leader| leader.get_at(&mem::TASK_COMM, skip))
            .unwrap_or(0)
    };
    put_words(&mut actor.comm, [word(0), word(8)]);
    let start = leader.and_then(|leader| leader.get(&mem::TASK_START));
    actor.start = start.unwrap_or(0);
    let flags = leader.and_then(|leader| leader.get::<u32>(&mem::TASK_FLAGS));
    rest(actor, tgid, flags.unwrap_or(0));
}

/// The same of the current task's process, copied. A kernel thread is its own group leader.
#[inline(always)]
fn copy_name(actor: &mut Actor, tgid: u32) {
    // SAFETY: the helper takes no argument.
    let task = mem::Number(unsafe { bpf_get_current_task() });
    let mut leader = 0;
    task.copy(&mem::TASK_LEADER, array::from_mut(&mut leader));
    let leader = mem::Number(leader);
    leader.copy(&mem::TASK_COMM, &mut actor.comm);
    leader.copy(&mem::TASK_START, array::from_mut(&mut actor.start));
    rest(actor, tgid, current_flags());
}

/// What is not a word of the group leader's.
#[inline(always)]
fn rest(actor: &mut Actor, tgid: u32, flags: u32) {
    actor.tgid = tgid;
    actor.kthread = u16::from(flags & PF_KTHREAD != 0);
    actor.exit = exit::NONE;
    actor.reserved = 0;
    actor.wanted = 0;
}
