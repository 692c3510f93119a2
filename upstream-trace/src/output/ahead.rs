//! Blocks of the output file, asked for ahead of the writing: into those that are there the kernel writes for a fifth to a third less.
//!
//! The file's length stays what was written. What is left over is given back at the end; where the run is killed, it stays allocated
//! behind the file's end. A file system that refuses is not asked again.
//! Must not know: what is written.

use std::fs::File;

use rustix::fs::{FallocateFlags, fallocate};

/// Asked for at once.
const STEP: u64 = 8 << 20;
/// Smaller writes come from a node that is not busy: for them it is not worth it.
const LARGE: usize = 1 << 17;

/// How far a file was written, from its beginning, and how far there are blocks for it.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    written: u64,
    reserved: u64,
    refused: bool,
}

impl Ahead {
    /// So many bytes are about to be written.
    pub(super) fn prepare(&mut self, file: &File, bytes: usize) {
        let end = self.written + bytes as u64;
        if bytes < LARGE || end <= self.reserved || self.refused {
            return;
        }
        if let Ok(data) = file.metadata()
            && data.len() < self.written
        {
            // Somebody has cut it, and with it what was behind its end.
            (self.written, self.reserved) = (data.len(), 0);
        }
        let end = self.written + bytes as u64;
        let start = self.reserved.max(self.written);
        let len = (end - start).next_multiple_of(STEP);
        self.refused = fallocate(file, FallocateFlags::KEEP_SIZE, start, len).is_err();
        if !self.refused {
            self.reserved = start + len;
        }
    }

    /// So many were.
    pub(super) const fn advance(&mut self, bytes: usize) {
        self.written += bytes as u64;
    }

    /// Gives back what is left over. Without success it is as if the run had been killed.
    pub(super) fn release(&self, file: &File) {
        if self.reserved > self.written
            && let Ok(data) = file.metadata()
        {
            // To cut a file where it ends frees what is behind.
            let _kept = file.set_len(data.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn blocks_come_ahead_and_go_at_the_end() {
        let mut file = tempfile::tempfile().unwrap();
        let held = |file: &File| {
            let data = file.metadata().unwrap();
            (data.len(), data.blocks() * 512)
        };
        let mut ahead = Ahead::default();
        let mut write = |ahead: &mut Ahead, bytes| {
            ahead.prepare(&file, bytes);
            file.write_all(&vec![b'x'; bytes]).unwrap();
            ahead.advance(bytes);
            held(&file)
        };
        let (len, blocks) = write(&mut ahead, LARGE - 1);
        assert!(len == LARGE as u64 - 1 && blocks < STEP);
        let (len, blocks) = write(&mut ahead, LARGE);
        assert!(len == 2 * LARGE as u64 - 1 && (STEP..2 * STEP).contains(&blocks));
        write(&mut ahead, 2 << 20);
        assert!(held(&file).1 < 2 * STEP);
        ahead.release(&file);
        let (len, blocks) = held(&file);
        assert_eq!(len, 2 * LARGE as u64 - 1 + (2 << 20));
        assert!(blocks < len + (1 << 16));
    }
}
