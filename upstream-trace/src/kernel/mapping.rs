//! Memory of the kernel's that is mapped instead of read.
//!
//! Must not know: what it holds.

use std::{
    fmt,
    fs::File,
    io,
    ops::Deref,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    ptr::{self, NonNull},
    sync::atomic::{Ordering, fence},
};

use zerocopy::FromBytes;

/// The whole of a file that never changes.
#[derive(Debug)]
pub struct Mapping(Pages);

impl Mapping {
    /// Maps a file.
    ///
    /// # Safety
    ///
    /// Nothing may write to the file, or cut it short, while the mapping exists.
    pub unsafe fn new(file: &File) -> io::Result<Self> {
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        Pages::map(file.as_fd(), len, libc::MAP_PRIVATE).map(Self)
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: so much is mapped until this is dropped, and does not change (`Mapping::new`).
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr(), self.0.len) }
    }
}

/// Memory that the kernel writes meanwhile: there are no references to it.
#[derive(Debug)]
pub struct Shared(Pages);

impl Shared {
    /// Maps the first `len` bytes of what is behind a descriptor.
    pub fn new(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Pages::map(fd, len, libc::MAP_SHARED).map(Self)
    }

    /// What is at this offset now, read before all that follows; `None` beyond what is mapped.
    pub fn read<T: FromBytes>(&self, offset: usize) -> Option<T> {
        let end = offset.checked_add(size_of::<T>())?;
        if end > self.0.len || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        let from = self.0.start.as_ptr().wrapping_add(offset).cast::<T>();
        // SAFETY: mapped as long as this lives, and aligned because a mapping begins with a page; any bytes are valid. Volatile,
        // because they change.
        let value = unsafe { from.read_volatile() };
        fence(Ordering::Acquire);
        Some(value)
    }
}

/// Pages of this process, read-only.
struct Pages {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: nothing is written through it, and only `drop` unmaps it. What others write to a `Shared` meanwhile, `Shared::read`
// allows for on any thread.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    fn map(fd: BorrowedFd<'_>, len: usize, sharing: libc::c_int) -> io::Result<Self> {
        // SAFETY: a mapping of its own, at a place that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ,
                sharing,
                fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: it is this value's own mapping, and no reference to it is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
