//! The kernel side as `build.rs` left it: an ELF file that is loaded as it is.
//!
//! What has to hold of its code on every kernel is tested here. Must not know: what is done with it.

/// Aligned, so that it is read in place.
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/upstream-trace.bpf.o"));

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::probe::catalog::{CATALOG, Rung};

    /// The little that is asked of a 64-bit ELF file: name, flags and content of each section.
    fn sections(file: &[u8]) -> Vec<(&str, u64, &[u8])> {
        let number = |at: usize, size: usize| {
            let bytes = file[at..at + size].iter().rev();
            bytes.fold(0, |number, &byte| number << 8 | u64::from(byte))
        };
        let place = |at, size| usize::try_from(number(at, size)).unwrap();
        let headers: Vec<_> = (0..place(0x3c, 2))
            .map(|index| place(0x28, 8) + index * place(0x3a, 2))
            .collect();
        let content = |header: usize| {
            let (from, size) = (place(header + 0x18, 8), place(header + 0x20, 8));
            // `SHT_NOBITS` has none.
            file.get(from..from + size).unwrap_or_default()
        };
        let names = content(headers[place(0x3e, 2)]);
        let name = |header: usize| {
            let name = &names[place(header, 4)..];
            std::ffi::CStr::from_bytes_until_nul(name).unwrap()
        };
        let section = |&header: &usize| {
            let name = name(header).to_str().unwrap();
            (name, number(header + 8, 8), content(header))
        };
        headers.iter().map(section).collect()
    }

    /// Before 6.4 a program that calls a function of its own has no table of the loads that may fault, and the first
    /// one that does takes the machine down (`Struct::by_way_of` on the kernel side names the fix).
    #[test]
    fn no_program_calls_a_function_of_its_own() {
        const EXECUTABLE: u64 = 4;
        const CALL: u8 = 0x85;
        const PSEUDO_CALL: u8 = 1;
        let mut hooks = 0;
        for (name, flags, code) in sections(OBJECT) {
            if flags & EXECUTABLE == 0 || name == ".text" {
                continue;
            }
            hooks += 1;
            let calls = code
                .chunks_exact(8)
                .filter(|insn| insn[0] == CALL && insn[1] >> 4 == PSEUDO_CALL);
            assert_eq!(calls.count(), 0, "{name}");
        }
        // Programs with the same hook share a section.
        let rungs = CATALOG.iter().flat_map(|entry| entry.rungs);
        let names: HashSet<_> = rungs.map(Rung::name).collect();
        assert_eq!(hooks, names.len());
    }

    /// What may be NULL there is compared with another number than 0 first, which no verifier takes for decided.
    #[test]
    fn null_arguments_are_doubted() {
        const GREATER: (u8, i32) = (0x25, 0xfff);
        const LESS: (u8, i32) = (0xa5, 0x1000);
        let sections = sections(OBJECT);
        let mut found = sections
            .iter()
            .filter(|(name, ..)| name.ends_with("/tcp_send_reset"));
        let (_, _, code) = found.next().unwrap();
        let compared = code.chunks_exact(8).filter(|insn| {
            let number = i32::from_le_bytes([insn[4], insn[5], insn[6], insn[7]]);
            [GREATER, LESS].contains(&(insn[0], number))
        });
        assert_eq!(compared.count(), 2, "the socket and the packet");
    }
}
