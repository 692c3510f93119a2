//! The bounded table of connections: by socket address, by both ends, and those that ended by their sequence numbers.
//!
//! Must not know: events, what a connection means.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{
    connection::{Connection, End, NONE, Slot},
    translated::FirstSeqs,
    tuple::Tuple,
};

/// Every connection that is tracked.
#[derive(Debug)]
pub struct Table {
    slots: Vec<Option<Connection>>,
    free: Vec<Slot>,
    by_sk: HashTable<Slot>,
    /// The first connection with each tuple; the others hang on `next_same_tuple`.
    by_tuple: HashTable<Slot>,
    /// Those that [`Self::match_seqs`] was told of.
    by_seqs: HashTable<Slot>,
    hasher: DefaultHashBuilder,
    /// The most connections that are kept.
    limit: usize,
    /// Where the search for one to put out goes on.
    hand: usize,
    /// Ending parts to use again, so that a steady run allocates none.
    #[expect(
        clippy::vec_box,
        reason = "the boxes themselves are what is used again"
    )]
    ends: Vec<Box<End>>,
}

/// Spare ending parts kept: as many as wait for their record at 40,000 connections a second.
const SPARE_ENDS: usize = 4096;

impl Table {
    /// An empty table for at most `limit` connections.
    pub fn new(limit: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_sk: HashTable::new(),
            by_tuple: HashTable::new(),
            by_seqs: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            limit: limit.clamp(1, NONE as usize),
            hand: 0,
            ends: Vec::new(),
        }
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The connection in `slot`.
    pub fn get(&self, slot: Slot) -> Option<&Connection> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// The connection in `slot`, to change; its `sk` and `tuple` stay as they are.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Connection> {
        let connection = self.slots.get_mut(slot as usize)?.as_mut()?;
        connection.touched = true;
        Some(connection)
    }

    /// The connection that the socket at this address has now.
    pub fn by_sk(&self, sk: u64) -> Option<Slot> {
        let hash = self.hasher.hash_one(sk);
        let found = self.by_sk.find(hash, |&slot| self.sk_of(slot) == sk);
        found.copied()
    }

    /// The connections with this tuple, whatever their network namespace.
    pub fn by_tuple(&self, tuple: &Tuple) -> impl Iterator<Item = (Slot, &Connection)> {
        let hash = self.hasher.hash_one(tuple);
        let first = self
            .by_tuple
            .find(hash, |&slot| self.tuple_of(slot) == Some(*tuple));
        let mut next = first.copied().unwrap_or(NONE);
        std::iter::from_fn(move || {
            let slot = next;
            let connection = self.get(slot)?;
            next = connection.next_same_tuple;
            Some((slot, connection))
        })
    }

    /// Adds a connection, not to be found before [`Self::index`]; where the table is full, one that was not used
    /// for long is put out for it. Returns where it is, and how many events the other had.
    pub fn insert(&mut self, connection: Connection) -> (Slot, u32) {
        let evicted = if self.len() >= self.limit {
            self.evict()
        } else {
            0
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // The limit keeps the number of slots below NONE.
            Slot::try_from(self.slots.len() - 1).unwrap_or(NONE)
        });
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(connection);
        }
        (slot, evicted)
    }

    /// Lets a connection be found, if it is there and was not to be found before.
    pub fn index(&mut self, slot: Slot) {
        let Some(connection) = self.get_mut(slot) else {
            return;
        };
        if std::mem::replace(&mut connection.indexed, true) {
            return;
        }
        let (sk, whole) = (connection.sk, connection.tuple.is_whole());
        let Self {
            by_sk,
            slots,
            hasher,
            ..
        } = self;
        by_sk.insert_unique(hasher.hash_one(sk), slot, |&slot| {
            hasher.hash_one(sk_in(slots, slot))
        });
        if whole {
            self.link_tuple(slot);
        }
    }

    /// The other connection that ended with these sequence numbers; if there is none, lets this one be found by them.
    pub fn match_seqs(&mut self, slot: Slot, seqs: FirstSeqs) -> Option<Slot> {
        let hash = self.hasher.hash_one(seqs);
        let same = |&other: &Slot| seqs_in(&self.slots, other) == Some(seqs);
        if let Some(&other) = self.by_seqs.find(hash, same) {
            return (other != slot).then_some(other);
        }
        self.end(slot)?.seqs = Some(seqs);
        let Self {
            by_seqs,
            slots,
            hasher,
            ..
        } = self;
        by_seqs.insert_unique(hash, slot, |&slot| {
            seqs_in(slots, slot).map_or(0, |seqs| hasher.hash_one(seqs))
        });
        None
    }

    /// Sets the tuple of a connection whose local port was not known.
    pub fn complete_tuple(&mut self, slot: Slot, tuple: Tuple) {
        if let Some(connection) = self.get_mut(slot)
            && !connection.tuple.is_whole()
            && tuple.is_whole()
        {
            connection.tuple = tuple;
            if connection.indexed {
                self.link_tuple(slot);
            }
        }
    }

    /// The socket's address belongs to another connection from now on.
    pub fn forget_sk(&mut self, slot: Slot) {
        let sk = self.sk_of(slot);
        let hash = self.hasher.hash_one(sk);
        if let Ok(entry) = self.by_sk.find_entry(hash, |&other| other == slot) {
            entry.remove();
        }
    }

    /// Takes a connection out, where it is; its peer no longer refers to it, and its ending part is there
    /// for another. Returns how many events it had.
    pub fn remove(&mut self, slot: Slot) -> u32 {
        if self.get(slot).is_some_and(|connection| connection.indexed) {
            self.forget_sk(slot);
            self.unlink_tuple(slot);
        }
        if let Some(seqs) = seqs_in(&self.slots, slot) {
            let hash = self.hasher.hash_one(seqs);
            if let Ok(entry) = self.by_seqs.find_entry(hash, |&other| other == slot) {
                entry.remove();
            }
        }
        if let Some((_, peer)) = self.with_peer(slot)
            && peer.peer == slot
        {
            peer.peer = NONE;
        }
        let Some(place) = self.slots.get_mut(slot as usize) else {
            return 0;
        };
        let Some(connection) = place else {
            return 0;
        };
        let (events, end) = (connection.events, connection.end.take());
        *place = None;
        self.free.push(slot);
        self.recycle(end);
        events
    }

    /// A connection and the other end of it, where that is tracked.
    pub fn with_peer(&mut self, slot: Slot) -> Option<(&mut Connection, &mut Connection)> {
        let peer = self.get(slot)?.peer;
        let both = [slot as usize, peer as usize];
        let [ended, peer] = self.slots.get_disjoint_mut(both).ok()?;
        let (ended, peer) = (ended.as_mut()?, peer.as_mut()?);
        peer.touched = true;
        Some((ended, peer))
    }

    /// The ending part of a connection, begun where it is not yet.
    pub fn end(&mut self, slot: Slot) -> Option<&mut End> {
        let Self { slots, ends, .. } = self;
        let connection = slots.get_mut(slot as usize)?.as_mut()?;
        Some(
            connection
                .end
                .get_or_insert_with(|| ends.pop().unwrap_or_default()),
        )
    }

    fn recycle(&mut self, end: Option<Box<End>>) {
        if let Some(mut end) = end
            && self.ends.len() < SPARE_ENDS
        {
            end.clear();
            self.ends.push(end);
        }
    }

    /// Every connection, in no order.
    pub fn slots(&self) -> impl Iterator<Item = (Slot, &Connection)> {
        (0..)
            .zip(&self.slots)
            .filter_map(|(slot, place)| Some((slot, place.as_ref()?)))
    }

    /// Puts out a connection that was not used since the hand came by last (the CLOCK algorithm): no
    /// list to keep in order on every event.
    fn evict(&mut self) -> u32 {
        for _ in 0..2 * self.slots.len() {
            let at = self.hand;
            self.hand = (at + 1) % self.slots.len().max(1);
            if let Some(Some(connection)) = self.slots.get_mut(at) {
                if connection.touched {
                    connection.touched = false;
                } else {
                    return Slot::try_from(at).map_or(0, |slot| self.remove(slot));
                }
            }
        }
        0
    }

    fn link_tuple(&mut self, slot: Slot) {
        let Some(tuple) = self.tuple_of(slot) else {
            return;
        };
        let hash = self.hasher.hash_one(tuple);
        let Self {
            by_tuple,
            slots,
            hasher,
            ..
        } = self;
        if let Some(first) = by_tuple.find_mut(hash, |&other| tuple_in(slots, other) == Some(tuple))
        {
            let next = std::mem::replace(first, slot);
            if let Some(Some(connection)) = slots.get_mut(slot as usize) {
                connection.next_same_tuple = next;
            }
        } else {
            by_tuple.insert_unique(hash, slot, |&slot| {
                tuple_in(slots, slot).map_or(0, |tuple| hasher.hash_one(tuple))
            });
        }
    }

    fn unlink_tuple(&mut self, slot: Slot) {
        let Some(connection) = self
            .get(slot)
            .filter(|connection| connection.tuple.is_whole())
        else {
            return;
        };
        let (tuple, next) = (connection.tuple, connection.next_same_tuple);
        let hash = self.hasher.hash_one(tuple);
        let Self {
            by_tuple, slots, ..
        } = self;
        let Ok(mut first) =
            by_tuple.find_entry(hash, |&other| tuple_in(slots, other) == Some(tuple))
        else {
            return;
        };
        if *first.get() == slot {
            if next == NONE {
                first.remove();
            } else {
                *first.get_mut() = next;
            }
            return;
        }
        let mut before = *first.get();
        while let Some(Some(connection)) = slots.get_mut(before as usize) {
            if connection.next_same_tuple == slot {
                connection.next_same_tuple = next;
                return;
            }
            before = connection.next_same_tuple;
        }
    }

    fn sk_of(&self, slot: Slot) -> u64 {
        sk_in(&self.slots, slot)
    }

    fn tuple_of(&self, slot: Slot) -> Option<Tuple> {
        tuple_in(&self.slots, slot)
    }
}

fn sk_in(slots: &[Option<Connection>], slot: Slot) -> u64 {
    let connection = slots.get(slot as usize).and_then(Option::as_ref);
    connection.map_or(0, |connection| connection.sk)
}

fn seqs_in(slots: &[Option<Connection>], slot: Slot) -> Option<FirstSeqs> {
    slots.get(slot as usize)?.as_ref()?.end.as_ref()?.seqs
}

fn tuple_in(slots: &[Option<Connection>], slot: Slot) -> Option<Tuple> {
    Some(slots.get(slot as usize)?.as_ref()?.tuple)
}
