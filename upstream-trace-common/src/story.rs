//! A socket's life so far, kept in the kernel until it ends, so that a healthy connection costs one
//! record and not one for each step.
//!
//! A story begins at a birth, takes the steps that say nothing on their own, and goes into the ring
//! when the socket ends ([`Ended`]) or when something happens that needs more room than a step has
//! (the bare [`Story`], then that event's own record). A socket without a story has each of its events
//! in the ring.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::event::{Actor, Base, Stats, kind};

/// Steps that a story can take. A healthy connection has four at most; one more than that is a SYN that
/// was lost.
pub const STEPS: usize = 5;

/// [`Story::acted`] where nobody did.
pub const NOBODY: u8 = u8::MAX;
/// [`Story::acted`] where the actor is who connected: the birth itself.
pub const AT_BIRTH: u8 = 0xfe;
/// [`Story::acted`] where the actor is who accepted, at [`Story::accepted`].
pub const AT_ACCEPT: u8 = 0xfd;

/// What a step or a birth was, without its time: `old` and `new` of [`Base`], and by them its kind. A SYN that is
/// sent again leaves the state as it is; a change of state from one to the same is none, and not told.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(transparent)]
pub struct Change(u8);

impl Change {
    /// From state to state, of which there are fewer than sixteen.
    #[inline]
    pub const fn of(old: u8, new: u8) -> Self {
        Self(old << 4 | new & 15)
    }

    /// `Base::old`.
    #[inline]
    pub const fn before(self) -> u8 {
        self.0 >> 4
    }

    /// `Base::new`.
    #[inline]
    pub const fn after(self) -> u8 {
        self.0 & 15
    }

    /// One of [`crate::event::kind`].
    #[inline]
    pub const fn kind(self) -> u8 {
        if self.before() == self.after() {
            kind::SYN_RETRANSMIT
        } else {
            kind::STATE
        }
    }
}

/// The story of a socket. What each step touches is in the first of the CPU's cache lines.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Story {
    /// As of [`Base`].
    pub sk: u64,
    /// When each step was, `CLOCK_MONOTONIC` nanoseconds.
    pub at: [u64; STEPS],
    /// What each step was.
    pub what: [Change; STEPS],
    /// Steps so far.
    pub len: u8,
    /// The step at which the actor acted, [`AT_BIRTH`], [`AT_ACCEPT`] or [`NOBODY`].
    pub acted: u8,
    /// How the process left the socket that sent its FIN, see [`crate::event::exit`].
    pub exit: u8,
    /// As of [`Base`]: at the birth, then at the first FIN.
    pub jiffies: u32,
    /// As of [`Base`], kept up to date.
    pub local_port: u16,
    /// As of [`Base`].
    pub remote_port: u16,
    /// When the birth was, `CLOCK_MONOTONIC` nanoseconds.
    pub born: u64,
    /// As of [`Base`].
    pub netns: u32,
    /// As of [`Base`].
    pub family: u8,
    /// What the birth was.
    pub birth: Change,
    /// State after the last step.
    pub state: u8,
    /// 1 where the socket's address is another's by now: its end was kept from every hook. Else 0.
    pub over: u8,
    /// As of [`Base`].
    pub local: [u64; 2],
    /// As of [`Base`].
    pub remote: [u64; 2],
    /// A process: whose, [`Story::acted`] says.
    pub actor: Actor,
    /// When a process accepted the socket; 0: none was seen to.
    pub accepted: u64,
    /// `Base::sk` of the socket that was accepted. An accept may race with the socket's end and find
    /// another story in the same place; then this is not the story's own, and the accept is void.
    pub accepted_sk: u64,
}

impl Story {
    /// How many events of the hooks it tells of.
    #[inline]
    pub const fn events(&self) -> u32 {
        self.events_if(self.accepted)
    }

    /// The same if that is [`Story::accepted`].
    #[inline]
    pub const fn events_if(&self, accepted: u64) -> u32 {
        1 + self.len as u32 + (accepted != 0) as u32
    }

    /// The birth, but for what is kept up to date.
    #[inline]
    pub const fn base(&self) -> Base {
        Base {
            ktime: self.born,
            sk: self.sk,
            kind: self.birth.kind(),
            family: self.family,
            old: self.birth.before(),
            new: self.birth.after(),
            local_port: self.local_port,
            remote_port: self.remote_port,
            netns: self.netns,
            jiffies: self.jiffies,
            local: self.local,
            remote: self.remote,
        }
    }
}

/// Where the kernel side keeps a story. Aligned, so that it begins with a cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub struct Place {
    /// Its `sk` is 0 where there is none, or it is not whole.
    pub story: Story,
    /// How many sockets hold the place or are about to; one that finds another there gives way.
    pub claims: u64,
}

/// A story with its end: the transition to `CLOSE` of a socket that no process has any more.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Ended {
    /// What came before.
    pub story: Story,
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub ktime: u64,
    /// State before.
    pub old: u32,
    /// 1 where the transition itself was not seen, only what follows it: the kernel kept it from the
    /// hook.
    pub late: u32,
    /// The socket's counters at that moment.
    pub stats: Stats,
}

impl Ended {
    /// How many events of the hooks it tells of.
    #[inline]
    pub const fn events(&self) -> u32 {
        self.story.events() + 1
    }
}

const _: () = {
    assert!(size_of::<Story>() == 176);
    assert!(size_of::<Place>() == 192);
    assert!(size_of::<Ended>() == 176 + 16 + 88);
};
