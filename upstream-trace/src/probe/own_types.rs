//! The types that the running kernel goes by, as it tells them itself, in whatever file system they may
//! be hidden.
//!
//! Must not know: what they are wanted for.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// Of `enum bpf_cmd`, `include/uapi/linux/bpf.h`.
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_BTF_GET_FD_BY_ID: libc::c_long = 19;
const BPF_BTF_GET_NEXT_ID: libc::c_long = 23;

/// What `union bpf_attr` has for finding an object by its id.
#[derive(Default)]
#[repr(C)]
struct Find {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// What it has for asking about one.
#[repr(C)]
struct Ask {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_btf_info`.
#[derive(Default)]
#[repr(C)]
struct Info {
    btf: u64,
    btf_size: u32,
    id: u32,
    name: u64,
    name_len: u32,
    kernel_btf: u32,
}

/// The BTF of the kernel proper; `None` where it has none, or is older than 5.11 and does not tell. Takes
/// `CAP_SYS_ADMIN`.
pub fn read() -> io::Result<Option<Vec<u8>>> {
    let mut find = Find::default();
    loop {
        // SAFETY: the attribute of this command, without pointers.
        match unsafe { bpf(BPF_BTF_GET_NEXT_ID, &mut find) } {
            Ok(_) => find.id = find.next_id,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        }
        // One that was unloaded since is of no interest.
        if let Ok(btf) = open(find.id)
            && let Some(bytes) = of_kernel(&btf)?
        {
            return Ok(Some(bytes));
        }
    }
}

fn open(id: u32) -> io::Result<OwnedFd> {
    let mut find = Find {
        id,
        ..Find::default()
    };
    // SAFETY: the attribute of this command, without pointers.
    let fd = unsafe { bpf(BPF_BTF_GET_FD_BY_ID, &mut find) }?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Its bytes if it is the kernel's own.
fn of_kernel(btf: &OwnedFd) -> io::Result<Option<Vec<u8>>> {
    const NAME: &[u8] = b"vmlinux\0";
    let mut name = [0_u8; NAME.len()];
    let mut info = Info {
        name: name.as_mut_ptr() as u64,
        name_len: u32::try_from(name.len()).unwrap_or_default(),
        ..Info::default()
    };
    // A longer name than that is not the kernel's, and an error. So is all of this before 5.11.
    if ask(btf, &mut info).is_err() || info.kernel_btf == 0 || name != NAME {
        return Ok(None);
    }
    let mut bytes = vec![0_u8; info.btf_size as usize];
    let mut info = Info {
        btf: bytes.as_mut_ptr() as u64,
        btf_size: info.btf_size,
        ..Info::default()
    };
    ask(btf, &mut info)?;
    Ok(Some(bytes))
}

/// The pointers in `info` lead to as many bytes as it says, or are 0.
fn ask(btf: &OwnedFd, info: &mut Info) -> io::Result<()> {
    let mut ask = Ask {
        fd: btf.as_raw_fd().cast_unsigned(),
        info_len: u32::try_from(size_of::<Info>()).unwrap_or_default(),
        info: &raw mut *info as u64,
    };
    // SAFETY: the attribute of this command; its pointer leads to an `Info` of the given length, whose own
    // pointers are as this function demands.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut ask) }.map(drop)
}

/// bpf(2), for what aya does not ask. What it returns is a descriptor for some commands, else 0.
///
/// # Safety
///
/// `attribute` has to be what `command` takes (`union bpf_attr`, `include/uapi/linux/bpf.h`), and its
/// pointers have to lead to as much memory as the kernel reads and writes there.
unsafe fn bpf<T>(command: libc::c_long, attribute: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: as the caller promises; the size is that of the attribute.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attribute, size_of::<T>()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(done).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_as_in_sysfs() {
        match read() {
            Ok(types) => {
                let file = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
                assert!(types.is_none_or(|types| types == file));
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }
}
