//! Cuts a kernel's BTF down to what is asked of it, to save it as test data.
//!
//! The named types are kept whole, with all types they lead to, but structs that no path goes
//! through lose their members, and enums that are not named their values. So a cut BTF of 50
//! to 70 KB gives the same answers as the kernel's 5 MB, and also to queries for a further member of
//! the same structs. Equal input gives equal bytes. Must not know: files, the list of fields.

use std::collections::{HashMap, HashSet};

use zerocopy::IntoBytes;

use super::{
    btf::Btf,
    btf_format::{Header, Kind, Type, Word},
};

/// What to keep. Names that the BTF does not have are passed over.
#[derive(Clone, Debug, Default)]
pub struct Keep<'a> {
    /// Struct and dotted path, as for [`Btf::member`].
    pub members: Vec<(&'a str, &'a str)>,
    pub enums: Vec<&'a str>,
    pub tracepoints: Vec<&'a str>,
    pub functions: Vec<&'a str>,
}

impl Btf {
    /// A valid BTF of its own that answers like this one for all that `keep` names.
    pub fn trim(&self, keep: &Keep<'_>) -> Vec<u8> {
        let mut trim = Trim {
            from: self,
            whole: HashSet::new(),
            ids: HashMap::new(),
            queue: Vec::new(),
        };
        for (of, path) in &keep.members {
            for id in self.aggregates(of) {
                trim.path(id, path);
            }
        }
        for name in &keep.enums {
            for id in self.named(name) {
                trim.whole.insert(id);
                trim.id(id);
            }
        }
        for name in &keep.tracepoints {
            self.named(&format!("btf_trace_{name}"))
                .for_each(|id| _ = trim.id(id));
        }
        for name in &keep.functions {
            self.named(name).for_each(|id| _ = trim.id(id));
        }
        trim.write()
    }
}

struct Trim<'a> {
    from: &'a Btf,
    /// Old ids of types that keep their members or values.
    whole: HashSet<u32>,
    /// New ids by old.
    ids: HashMap<u32, u32>,
    /// Old ids in the order of the new ones.
    queue: Vec<u32>,
}

impl Trim<'_> {
    /// Keeps the structs on the `path` from struct `id`.
    fn path(&mut self, id: u32, path: &str) {
        self.id(id);
        let mut at = Some(id);
        for name in path.split('.') {
            let Some(id) = at else { return };
            self.keep_whole(id);
            at = self.from.step(id, name).map(|(_, id)| id);
        }
    }

    fn keep_whole(&mut self, id: u32) {
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            let Some((id, ty)) = self.from.aggregate(id) else {
                continue;
            };
            if self.whole.insert(id) {
                let anonymous = ty.rows().iter().filter(|[name, _, _]| *name == 0);
                pending.extend(anonymous.map(|[_, id, _]| id.get()));
            }
        }
    }

    /// The new id of a type, which is written in its turn.
    fn id(&mut self, old: u32) -> u32 {
        if self.from.ty(old).is_none() {
            return 0;
        }
        *self.ids.entry(old).or_insert_with(|| {
            self.queue.push(old);
            small(self.queue.len())
        })
    }

    fn write(mut self) -> Vec<u8> {
        let mut writer = Writer::default();
        let mut written = 0;
        while let Some(&old) = self.queue.get(written) {
            written += 1;
            let Some(ty) = self.from.ty(old) else {
                continue;
            };
            let whole = !matches!(
                ty.kind,
                Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64
            ) || self.whole.contains(&old);
            let name = writer.string(self.from.text(ty.name).unwrap_or_default());
            let size_or_id = if ty.kind.refers() {
                self.id(ty.size_or_id)
            } else {
                ty.size_or_id
            };
            let mut words = Vec::new();
            if whole {
                let (row, _) = ty.kind.tail();
                for (&[word], what) in ty.rows().iter().zip(row.iter().cycle()) {
                    words.push(match what {
                        Word::Name => writer.string(self.from.text(word.get()).unwrap_or_default()),
                        Word::Type => self.id(word.get()),
                        Word::Number => word.get(),
                    });
                }
            }
            let count = if whole { ty.count } else { 0 };
            writer.add(
                &Type {
                    name,
                    count,
                    size_or_id,
                    ..ty
                },
                &words,
            );
        }
        writer.finish()
    }
}

/// Puts BTF together, type by type.
#[derive(Debug, Default)]
pub(super) struct Writer {
    types: Vec<u8>,
    /// Without the empty string that comes first.
    strings: Vec<u8>,
    offsets: HashMap<Vec<u8>, u32>,
    last: u32,
}

impl Writer {
    /// The offset of a string, each of which is stored once.
    pub(super) fn string(&mut self, text: &[u8]) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(&offset) = self.offsets.get(text) {
            return offset;
        }
        let offset = small(self.strings.len() + 1);
        self.strings.extend_from_slice(text);
        self.strings.push(0);
        self.offsets.insert(text.to_vec(), offset);
        offset
    }

    /// Writes the next type and tells its id; names are offsets of this writer's strings.
    pub(super) fn add(&mut self, ty: &Type<'_>, words: &[u32]) -> u32 {
        let info = u32::from(ty.flag) << 31 | u32::from(ty.kind as u8) << 24 | ty.count;
        for word in [ty.name, info, ty.size_or_id].iter().chain(words) {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
        self.last += 1;
        self.last
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let types = small(self.types.len());
        let header = Header::new(types, small(self.strings.len() + 1));
        [header.as_bytes(), &self.types, &[0], &self.strings].concat()
    }
}

/// Cut BTF only ever shrinks, from something that had 32-bit lengths itself.
fn small(len: usize) -> u32 {
    u32::try_from(len).expect("cut BTF is far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use upstream_trace_common::field::FIELDS;

    use super::*;
    use crate::kernel::{host, offsets::Offsets, reasons::Reasons, sample};

    fn keep() -> Keep<'static> {
        Keep {
            members: FIELDS.iter().map(|field| (field.of, field.path)).collect(),
            enums: vec!["sk_rst_reason"],
            tracepoints: vec!["tcp_send_reset", "kfree_skb", "no_such_tracepoint"],
            functions: vec!["tcp_connect", "no_such_function"],
        }
    }

    #[test]
    fn cut_kernel_answers_as_the_whole() {
        let whole = host::btf().unwrap();
        let bytes = whole.trim(&keep());
        assert!(bytes.len() < 100_000, "{} bytes", bytes.len());
        let cut = Btf::parse(bytes.clone()).unwrap();
        assert_eq!(Offsets::resolve(&cut), Offsets::resolve(&whole));
        assert_eq!(Reasons::of_resets(&cut), Reasons::of_resets(&whole));
        for name in ["tcp_send_reset", "kfree_skb", "no_such_tracepoint"] {
            assert_eq!(
                cut.tracepoint_args(name),
                whole.tracepoint_args(name),
                "{name}"
            );
        }
        for name in ["tcp_connect", "no_such_function"] {
            assert_eq!(cut.function_args(name), whole.function_args(name), "{name}");
        }
        assert_eq!(cut.trim(&keep()), bytes, "cutting again changes nothing");
    }

    #[test]
    fn only_what_is_on_a_path_keeps_members() {
        let btf = Btf::parse(sample::every_kind()).unwrap();
        let keep = Keep {
            members: vec![("outer", "inner.far")],
            ..Keep::default()
        };
        let cut = Btf::parse(btf.trim(&keep)).unwrap();
        for path in [
            "inner.far",
            "inner.near",
            "first",
            "anonymous",
            "pointer",
            "other",
        ] {
            let member = btf.member("outer", path);
            assert!(member.is_some(), "{path}");
            assert_eq!(cut.member("outer", path), member, "{path}");
        }
        assert!(btf.member("outer", "other.hidden").is_some());
        assert_eq!(cut.member("outer", "other.hidden"), None);
        assert_eq!(cut.enumerators("colour"), Some(Vec::new()));
    }
}
