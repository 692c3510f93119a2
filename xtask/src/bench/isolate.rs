//! A place of our own to measure in, which is gone when we are.
//!
//! In a network namespace of its own the storm's port is free and no firewall rule of this
//! machine has a part in the figures; in a mount namespace of its own tracefs can be mounted.

use std::{
    io,
    mem::MaybeUninit,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
    path::Path,
    ptr,
};

use anyhow::{Context as _, Result};

/// Must run before any thread is started: namespaces are left and entered by thread.
pub(super) fn enter() -> Result<()> {
    let namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWNET;
    // SAFETY: a plain number; it changes only what this thread and its children see.
    check(unsafe { libc::unshare(namespaces) }).context("cannot make namespaces")?;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the path is a constant that ends in 0; a null source, type and data are allowed.
    let result = unsafe {
        libc::mount(
            ptr::null(),
            c"/".as_ptr(),
            ptr::null(),
            private,
            ptr::null(),
        )
    };
    check(result).context("cannot make the mounts private")?;
    mount_tracefs();
    loopback_up().context("cannot bring up loopback")
}

/// The peers find their hooks there. Whichever does not will say so, and be skipped.
fn mount_tracefs() {
    if Path::new("/sys/kernel/tracing/events").exists() {
        return;
    }
    // SAFETY: the strings are constants that end in 0; null data is allowed.
    let result = unsafe {
        libc::mount(
            c"tracefs".as_ptr(),
            c"/sys/kernel/tracing".as_ptr(),
            c"tracefs".as_ptr(),
            0,
            ptr::null(),
        )
    };
    if let Err(error) = check(result) {
        super::say(&format!("cannot mount tracefs: {error}"));
    }
}

/// A new network namespace has a loopback interface, but it is down.
fn loopback_up() -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: all of its fields are numbers or arrays of them, so all bytes 0 is a value.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = libc::c_char::try_from(*from)?;
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING)?;
    // SAFETY: this request reads one ifreq with a name and flags, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })?;
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
