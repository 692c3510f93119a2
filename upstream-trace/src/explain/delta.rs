//! A line as what differs from one like it: the tracer says nearly the same of most connections.
//!
//! Must not know: what a line says, only that commas separate its parts.

use std::{hash::Hash, rc::Rc};

use hashbrown::HashMap;

/// A line, from which [`Delta::line`] makes the text again.
#[derive(Debug)]
pub struct Delta {
    base: Rc<[u8]>,
    /// How many bytes of the base stay, how many go, how many come in their place, and these; again and again. The rest stays.
    edits: Box<[u8]>,
    /// Of the text.
    pub len: usize,
}

impl Delta {
    /// The line as it was.
    pub fn line(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(self.len);
        let (mut base, mut edits) = (&*self.base, &*self.edits);
        while let Some((&[stay, go, come], rest)) = edits.split_first_chunk() {
            edits = rest;
            line.extend_from_slice(take(&mut base, stay.into()));
            take(&mut base, go.into());
            line.extend_from_slice(take(&mut edits, come.into()));
        }
        line.extend_from_slice(base);
        line
    }
}

/// Makes deltas, each to the base of its kind `K`.
#[derive(Debug)]
pub struct Encoder<K> {
    bases: HashMap<K, Rc<[u8]>>,
    /// Room to use again.
    edits: Vec<u8>,
}

impl<K> Default for Encoder<K> {
    fn default() -> Self {
        Self {
            bases: HashMap::new(),
            edits: Vec::new(),
        }
    }
}

impl<K: Eq + Hash> Encoder<K> {
    /// A line that has little in common with the base is kept whole, as the base of those behind it.
    pub fn encode(&mut self, kind: K, line: &[u8]) -> Delta {
        let base = self.bases.entry(kind).or_insert_with(|| line.into());
        self.edits.clear();
        differences(base, line, &mut self.edits);
        if self.edits.len() > line.len() / 2 {
            *base = line.into();
            self.edits.clear();
        }
        Delta {
            base: Rc::clone(base),
            edits: self.edits.as_slice().into(),
            len: line.len(),
        }
    }
}

/// Their ends belong together; behind each difference before that both go on at their next comma.
fn differences(base: &[u8], line: &[u8], edits: &mut Vec<u8>) {
    let end = common_end(base, line);
    let (mut base, _) = base.split_at(base.len() - end);
    let (mut line, _) = line.split_at(line.len() - end);
    loop {
        let same = common(base, line);
        take(&mut base, same);
        take(&mut line, same);
        if base.is_empty() && line.is_empty() {
            return;
        }
        let commas = (memchr::memchr(b',', base), memchr::memchr(b',', line));
        let (go, come) = match commas {
            (Some(go), Some(come)) => (go, come),
            _ => (base.len(), line.len()),
        };
        take(&mut base, go);
        edit(same, go, take(&mut line, come), edits);
    }
}

/// As many edits as it takes to count in bytes.
fn edit(mut stay: usize, mut go: usize, mut come: &[u8], edits: &mut Vec<u8>) {
    let count = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    while stay > usize::from(u8::MAX) {
        edits.extend([u8::MAX, 0, 0]);
        stay -= usize::from(u8::MAX);
    }
    loop {
        let counts = [count(stay), count(go), count(come.len())];
        edits.extend(counts);
        edits.extend_from_slice(take(&mut come, counts[2].into()));
        stay = 0;
        go -= usize::from(counts[1]);
        if go == 0 && come.is_empty() {
            return;
        }
    }
}

/// How many bytes both begin with.
fn common(one: &[u8], other: &[u8]) -> usize {
    let (blocks, _) = one.as_chunks();
    let (others, _) = other.as_chunks();
    for (index, (block, other)) in blocks.iter().zip(others).enumerate() {
        let differing = u128::from_le_bytes(*block) ^ u128::from_le_bytes(*other);
        if differing != 0 {
            return 16 * index + differing.trailing_zeros() as usize / 8;
        }
    }
    let compared = 16 * blocks.len().min(others.len());
    let rests = one.iter().zip(other).skip(compared);
    compared + rests.take_while(|(one, other)| one == other).count()
}

/// How many bytes both end with.
fn common_end(one: &[u8], other: &[u8]) -> usize {
    let (_, blocks) = one.as_rchunks();
    let (_, others) = other.as_rchunks();
    for (index, (block, other)) in blocks.iter().rev().zip(others.iter().rev()).enumerate() {
        let differing = u128::from_le_bytes(*block) ^ u128::from_le_bytes(*other);
        if differing != 0 {
            return 16 * index + differing.leading_zeros() as usize / 8;
        }
    }
    16 * blocks.len().min(others.len())
}

/// The first `count` bytes, or all.
fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, behind) = rest.split_at(count.min(rest.len()));
    *rest = behind;
    taken
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::output::{json, samples};

    proptest! {
        #[test]
        fn any_line_comes_back(
            lines in prop::collection::vec((0..2, "[ab,]{0,600}"), 1..20),
        ) {
            let mut encoder = Encoder::default();
            for (kind, line) in lines {
                let delta = encoder.encode(kind, line.as_bytes());
                prop_assert_eq!(delta.len, line.len());
                prop_assert_eq!(delta.line(), line.as_bytes());
            }
        }

        #[test]
        fn any_record_comes_back(
            records in prop::collection::vec(samples::connections(), 1..4),
        ) {
            let mut encoder = Encoder::default();
            for record in records {
                let mut room = vec![0; 1 << 16];
                let len = json::connection(&record, &mut room).unwrap();
                room.truncate(len);
                prop_assert_eq!(encoder.encode((), &room).line(), room);
            }
        }
    }

    #[test]
    fn differences_of_any_length_come_back() {
        let lengths = [0, 1, 254, 255, 256, 510, 511, 700];
        let same = "y".repeat(4_000);
        for (stay, go, come) in lengths
            .into_iter()
            .flat_map(|stay| lengths.map(|go| (stay, go)))
            .flat_map(|(stay, go)| lengths.map(|come| (stay, go, come)))
        {
            let [stay, go, come] = [("s", stay), ("a", go), ("b", come)].map(|(s, n)| s.repeat(n));
            let mut encoder = Encoder::default();
            let base = encoder.encode((), format!("{stay}{go},s{same}").as_bytes());
            let line = format!("{stay}{come},s{same}");
            let delta = encoder.encode((), line.as_bytes());
            assert!(Rc::ptr_eq(&delta.base, &base.base));
            assert_eq!(String::from_utf8_lossy(&delta.line()), line);
        }
    }

    #[test]
    fn what_is_alike_takes_little() {
        let line = |number: u64| {
            let same = "x".repeat(1_000);
            format!("{{\"time\":{number},\"same\":\"{same}\",\"seq\":{number},\"complete\":true}}")
        };
        let mut encoder = Encoder::default();
        let first = encoder.encode((), line(9).as_bytes());
        let second = encoder.encode((), line(10).as_bytes());
        assert!(Rc::ptr_eq(&first.base, &second.base) && first.edits.is_empty());
        assert!(second.edits.len() < 30, "{:?}", second.edits);
        assert_eq!(second.line(), line(10).as_bytes());
    }

    #[test]
    fn what_is_not_alike_is_the_next_base() {
        let mut encoder = Encoder::default();
        let first = encoder.encode((), &[b'a'; 100]);
        let second = encoder.encode((), &[b'b'; 50]);
        let third = encoder.encode((), &[b'b'; 50]);
        assert!(!Rc::ptr_eq(&first.base, &second.base) && Rc::ptr_eq(&second.base, &third.base));
        assert!(second.edits.is_empty() && third.edits.is_empty());
        assert_eq!(first.line(), [b'a'; 100]);
    }
}
