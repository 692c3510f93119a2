//! The lines that wait to be written, between the main loop that adds them and the thread that takes them.
//!
//! Bounded in bytes; what does not fit is the caller's to count. Must not know: what is written to.

use std::{
    collections::VecDeque,
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::output::{Batch, Weight};

/// A batch with more memory than this is not used again.
const KEEP: usize = 1 << 20;
/// Batches kept to be used again: so many wait while other programs have all processors. A new one grows by doubling, which is the
/// dearest part of filling it.
const SPARE: usize = 4;

/// What the two threads share.
#[derive(Debug)]
pub(super) struct Queue {
    /// Bytes that may wait.
    limit: usize,
    state: Mutex<State>,
    /// There is something to write, or no more will come.
    work: Condvar,
    /// All is written, or nothing more can be.
    progress: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pending: VecDeque<Batch>,
    /// Empty ones, for their memory.
    spare: Vec<Batch>,
    /// Bytes that the thread has taken and not yet written.
    in_flight: usize,
    /// All lines not yet written, pending and in flight.
    pub(super) waiting: Weight,
    /// The thread waits for work: only then does it have to be woken.
    asleep: bool,
    /// What is in flight has been given up and is no longer counted in `waiting`.
    abandoned: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Running,
    /// No more will come.
    Closing,
    /// Nothing more can be written.
    Dead,
}

impl State {
    fn idle(&self) -> bool {
        self.phase == Phase::Dead || (self.in_flight == 0 && self.pending.is_empty())
    }

    /// Bytes that are not yet written.
    pub(super) fn bytes(&self) -> usize {
        self.in_flight + self.pending.iter().map(Batch::len).sum::<usize>()
    }

    /// Puts all lines of `batch` behind those that wait: with the last ones where there is memory for them, else
    /// as they are.
    fn take(&mut self, batch: &mut Batch) {
        if self
            .pending
            .back_mut()
            .is_some_and(|last| last.append(batch))
        {
            return;
        }
        let empty = self.spare.pop().unwrap_or_default();
        self.pending.push_back(mem::replace(batch, empty));
    }

    /// Keeps the memory of a batch that was written.
    fn recycle(&mut self, mut batch: Batch) {
        if self.spare.len() < SPARE && (1..=KEEP).contains(&batch.memory()) {
            batch.clear();
            self.spare.push(batch);
        }
    }
}

impl Queue {
    /// One in which at most `limit` bytes wait.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            state: Mutex::default(),
            work: Condvar::new(),
            progress: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all lines of `batch`, which is empty afterwards and has memory for the next; returns the weight of those that there is no room
    /// for, or nobody to write them.
    pub(super) fn push(&self, batch: &mut Batch) -> Weight {
        let mut state = self.lock();
        if state.phase == Phase::Dead {
            let dropped = batch.weight();
            batch.clear();
            return dropped;
        }
        let dropped = batch.keep(self.limit.saturating_sub(state.bytes()));
        if batch.is_empty() {
            return dropped;
        }
        state.waiting += batch.weight();
        state.take(batch);
        if state.asleep {
            state.asleep = false;
            drop(state);
            self.work.notify_one();
        }
        dropped
    }

    /// Waits until all is written, at most for `timeout`; gives up the rest and returns its weight.
    pub(super) fn drain(&self, timeout: Duration) -> Weight {
        let (mut state, _) = self
            .progress
            .wait_timeout_while(self.lock(), timeout, |state| !state.idle())
            .unwrap_or_else(PoisonError::into_inner);
        state.pending.clear();
        state.abandoned = state.in_flight > 0;
        mem::take(&mut state.waiting)
    }

    /// Lets the thread end once all is written; whether it already is.
    pub(super) fn close(&self) -> bool {
        let mut state = self.lock();
        let idle = state.idle();
        if state.phase == Phase::Running {
            state.phase = Phase::Closing;
        }
        drop(state);
        self.work.notify_one();
        idle
    }

    /// Exchanges a batch that was written for the first that waits; `None` at the end.
    pub(super) fn next(&self, written: Batch) -> Option<Batch> {
        let mut state = self.lock();
        state.recycle(written);
        loop {
            if let Some(batch) = state.pending.pop_front() {
                state.asleep = false;
                state.abandoned = false;
                state.in_flight = batch.len();
                return Some(batch);
            }
            if state.phase == Phase::Closing {
                return None;
            }
            state.asleep = true;
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// So many bytes of `batch` were written, which are gone from it afterwards; so is all else of it, if it was given up meanwhile.
    pub(super) fn written(&self, batch: &mut Batch, bytes: usize) {
        let done = batch.advance(bytes);
        let mut state = self.lock();
        if state.abandoned {
            batch.cut();
        } else {
            state.waiting -= done;
        }
        state.in_flight = batch.len();
        if batch.is_empty() {
            drop(state);
            self.progress.notify_all();
        }
    }
    /// Nothing more can be written.
    pub(super) fn die(&self) {
        let mut state = self.lock();
        state.phase = Phase::Dead;
        state.in_flight = 0;
        drop(state);
        self.progress.notify_all();
    }
}
