//! Typed views of kernel structs. Only [`mem`] loads from kernel memory; others name the field.

pub mod mem;
pub mod skb;
pub mod sock;
pub mod task;

use mem::{Memory, Struct};

/// More levels of cgroups than any runtime nests.
const DEPTH: u32 = 32;

/// Whether the id of this `struct cgroup`, or of one above it, is `wanted`.
#[inline(always)]
fn is_under<M: Memory>(cgroup: Struct<M>, wanted: impl Fn(u64) -> bool) -> bool {
    let mut at = Some(cgroup);
    for _ in 0..DEPTH {
        let Some(cgroup) = at else {
            return false;
        };
        if cgroup_id(cgroup).is_some_and(&wanted) {
            return true;
        }
        // The root has no parent.
        at = cgroup
            .follow(&mem::CGROUP_PARENT)
            .and_then(|parent| parent.follow(&mem::CSS_CGROUP));
    }
    false
}

/// cgroup v2 id of a `struct cgroup`: `kernfs_node.id`, the inode number of its directory.
#[inline(always)]
fn cgroup_id<M: Memory>(cgroup: Struct<M>) -> Option<u64> {
    cgroup.by_way_of(&mem::CGROUP_KN)?.get(&mem::KN_ID)
}
