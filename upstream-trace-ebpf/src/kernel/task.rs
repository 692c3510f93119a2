//! `struct task_struct`: the process behind the current task, or behind one from an iterator.

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_task,
    bpf_get_current_task_btf, bpf_get_current_uid_gid,
};
use upstream_trace_common::event::{Actor, NO_UID};

use super::mem::{self, Copied, Direct, Memory, Struct};
use crate::maps::set;

/// `PF_KTHREAD`, `include/linux/sched.h`.
const PF_KTHREAD: u32 = 0x0020_0000;

/// Process id (thread group) of the current task, in the initial pid namespace.
#[inline(always)]
pub fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// The process that the current task belongs to.
#[inline(always)]
pub fn current(actor: &mut Actor) {
    actor.tgid = current_tgid();
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is the uid")]
    let uid = bpf_get_current_uid_gid() as u32;
    actor.uid = uid;
    // SAFETY: the helper takes no argument.
    actor.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    if set::HAS_CURRENT_TASK_BTF() != 0 {
        // SAFETY: the helper takes no argument.
        let task = unsafe { bpf_get_current_task_btf() };
        leader(actor, Struct::<Direct>::new(task.cast()));
    } else {
        // SAFETY: the helper takes no argument.
        let task = unsafe { bpf_get_current_task() };
        leader(actor, Struct::<Copied>::new(task as *const u8));
    }
}

/// The process of `task`; its uid and cgroup are not read here.
#[inline(always)]
pub fn of_task(actor: &mut Actor, task: Struct<Direct>, tgid: u32) {
    actor.tgid = tgid;
    actor.uid = NO_UID;
    actor.cgroup_id = 0;
    leader(actor, Some(task));
}

/// Nobody: the event does not run in the context of anyone who caused it.
#[inline(always)]
pub fn nobody(actor: &mut Actor) {
    actor.tgid = 0;
    actor.uid = NO_UID;
    actor.cgroup_id = 0;
    leader(actor, None::<Struct<Direct>>);
}

/// Name and start of the group leader: a thread's own name is not the process's.
#[inline(always)]
fn leader<M: Memory>(actor: &mut Actor, task: Option<Struct<M>>) {
    let leader = task.and_then(|task| task.follow(&mem::TASK_LEADER));
    let word = |skip| {
        leader
            .and_then(|leader| leader.get_at(&mem::TASK_COMM, skip))
            .unwrap_or(0)
    };
    actor.comm = [word(0), word(8)];
    let start = leader.and_then(|leader| leader.get(&mem::TASK_START));
    actor.start = start.unwrap_or(0);
    let flags = leader.and_then(|leader| leader.get::<u32>(&mem::TASK_FLAGS));
    actor.kthread = u32::from(flags.unwrap_or(0) & PF_KTHREAD != 0);
    actor.reserved = 0;
}
