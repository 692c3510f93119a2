//! bpf(2), for what aya does not ask.
//!
//! Must not know: what is asked.

use std::io;

/// Makes the call. What it returns is a descriptor for some commands, else 0.
///
/// # Safety
///
/// `attribute` has to be what `command` takes (`union bpf_attr`, `include/uapi/linux/bpf.h`), and its
/// pointers have to lead to as much memory as the kernel reads and writes there.
pub(super) unsafe fn bpf<T>(command: libc::c_long, attribute: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: as the caller promises; the size is that of the attribute.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attribute, size_of::<T>()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(done).map_err(io::Error::other)
}
