//! What the running kernel's own type information has, as far as tests ask. `Documentation/bpf/btf.rst` has the format.
//!
//! Must not know: what is concluded from it.

use std::{collections::HashMap, fs, io};

use memchr::memmem;

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// The type information, whole.
#[derive(Debug)]
pub struct Types(Vec<u8>);

/// A kernel function.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    pub id: u32,
    pub arguments: u32,
}

impl Types {
    pub fn read() -> io::Result<Self> {
        fs::read(BTF).map(Self)
    }

    /// Whether anything has this name.
    pub fn has(&self, name: &str) -> bool {
        let name = format!("\0{name}\0");
        memmem::find(&self.0, name.as_bytes()).is_some()
    }

    /// The function of this name.
    pub fn function(&self, name: &str) -> Option<Function> {
        let types = self.place(4)? + self.place(8)?;
        let types_end = types + self.place(12)?;
        let strings = self.place(4)? + self.place(16)?;
        let (mut prototypes, mut found) = (HashMap::new(), None);
        let (mut at, mut id) = (types, 1);
        while at < types_end {
            let info = self.word(at + 4)?;
            let count = info & 0xffff;
            let called = self.0.get(strings + self.place(at)?..)?;
            let is_named = || called.split(|&byte| byte == 0).next() == Some(name.as_bytes());
            let more = match info >> 24 & 0x1f {
                // INT, VAR, DECL_TAG: a word more.
                1 | 14 | 17 => 4,
                // ARRAY: three.
                3 => 12,
                // STRUCT, UNION, DATASEC, ENUM64: three for each member.
                4 | 5 | 15 | 19 => 12 * count,
                // ENUM: two.
                6 => 8 * count,
                // FUNC_PROTO: two for each argument.
                13 => {
                    prototypes.insert(id, count);
                    8 * count
                }
                // FUNC, with the id of its prototype.
                12 if is_named() => {
                    found = Some((id, self.word(at + 8)?));
                    0
                }
                _ => 0,
            };
            at += 12 + usize::try_from(more).ok()?;
            id += 1;
        }
        let (id, prototype) = found?;
        let arguments = *prototypes.get(&prototype)?;
        Some(Function { id, arguments })
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.0.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    }

    fn place(&self, at: usize) -> Option<usize> {
        usize::try_from(self.word(at)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_what_all_have() {
        let types = Types::read().unwrap();
        assert!(types.has("sk_buff") && !types.has("sk_buff_of_another_world"));
        // `static void tcp_reset(struct sock *sk)`, since 5.11 with the packet.
        let reset = types.function("tcp_reset").unwrap();
        assert!((1..=2).contains(&reset.arguments), "{reset:?}");
        assert!(types.function("sk_buff").is_none());
    }
}
