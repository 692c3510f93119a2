//! Typed views of kernel structs. Nothing outside this folder reads kernel memory.

pub mod mem;
pub mod skb;
pub mod sock;
pub mod task;

use mem::{Memory, Struct};

/// cgroup v2 id of a `struct cgroup`: `kernfs_node.id`, the inode number of its directory.
#[inline(always)]
fn cgroup_id<M: Memory>(cgroup: Struct<M>) -> Option<u64> {
    cgroup.by_way_of(&mem::CGROUP_KN)?.get(&mem::KN_ID)
}
