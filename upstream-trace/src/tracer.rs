//! The tracer at work: drains the ring, joins, hands to the printer, looks into the kernel for what events alone do not tell.
//!
//! One thread does all of it; only the writing has its own, so that a slow reader of the output delays
//! nothing here. Must not know: how the hooks came to be attached.

use std::{io::Read as _, time::Duration};

use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, MissedTickBehavior},
};
use upstream_trace_common::{event::Base, story::Story};

use crate::{
    account::Account,
    clock::{self, Anchor},
    decode::{self, Record},
    exit::{Code, Failure},
    join::engine::{Engine, HOLD_NS},
    printer::Printer,
    probe::loaded::Loaded,
    proc::Proc,
    settings::Settings,
    stop::{Stop, cannot_wait},
};

/// How often the ring is looked at: a record has to appear within 100 ms, of which the join holds it for
/// 20; each look costs tens of microseconds, most of it for memory that has gone cold.
const TICK: Duration = Duration::from_millis(30);
/// Records taken before something else gets its turn.
const BATCH: usize = 4096;
/// Of a record in the ring at the least, with the kernel's header before it (`BPF_RINGBUF_HDR_SZ`).
const SHORTEST: usize = size_of::<Base>() + 8;
/// Files looked at in one go while they are scanned: a read of as many bytes. What is closed meanwhile may have to
/// wait that long, a tenth of a millisecond or two.
const SCAN_STEP: usize = 128;
/// A scan rests so many times as long as it took.
const SCAN_SHARE: u32 = 20;

/// The most that a look for other ends makes the next one rest, however long it took (a host may have stolen that time): whoever waits
/// for it is printed without after 70 ms.
const LOOK_REST: Duration = Duration::from_millis(20);

/// How long hooks stay after a stop, so that what ended before it is told as any other.
const STAY: Duration = Duration::from_nanos(HOLD_NS);
/// How often the ring is looked at meanwhile: the smallest holds the records of so long.
const STAY_TICK: Duration = Duration::from_millis(5);
/// A program that was running when it was taken out has ended by then, and its record is whole.
const LAST: Duration = Duration::from_millis(20);

/// At least this long between two accounts of ever more losses.
const NEWS: Duration = Duration::from_secs(1);

/// The kernel side, the join, and the account of both.
#[derive(Debug)]
pub struct Tracer {
    loaded: Loaded,
    engine: Engine,
    account: Account,
    /// Since the last scan of open files.
    scanned: Pause,
    /// Since the last look at open connections.
    looked: Pause,
    /// So many records fit into the ring.
    room: usize,
    turn: Turn,
}

/// What was in the ring at a moment: where events come faster than they are taken, it is never empty.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// `CLOCK_MONOTONIC` nanoseconds.
    now: u64,
    /// So many records may have been there then and not be taken yet.
    left: usize,
}

/// How long some work has to rest, so that it takes no more than its share of the time.
#[derive(Clone, Copy, Debug)]
struct Pause(Instant);

impl Pause {
    /// `began`: what [`clock::worked`] said then. Time without a processor is rest as well.
    fn after(began: u64) -> Self {
        let took = Duration::from_nanos(clock::worked().saturating_sub(began));
        Self(Instant::now() + took * SCAN_SHARE)
    }

    fn at_most(self, rest: Duration) -> Self {
        Self(self.0.min(Instant::now() + rest))
    }

    fn has_rested(self) -> bool {
        Instant::now() >= self.0
    }
}

impl Tracer {
    /// One that has taken nothing yet.
    pub fn new(loaded: Loaded, engine: Engine, ring_size: u32) -> Self {
        Self {
            loaded,
            engine,
            account: Account::default(),
            scanned: Pause(Instant::now()),
            looked: Pause(Instant::now()),
            room: ring_size as usize / SHORTEST,
            turn: Turn { now: 0, left: 0 },
        }
    }

    /// Takes a batch out of the ring, joins, hands what is finished to the printer. Whether there is more.
    fn drain(&mut self, printer: &mut Printer) -> Result<bool, Failure> {
        if self.turn.left == 0 {
            // Read first: whatever ended before it has all its events in the ring.
            self.turn = Turn {
                now: clock::monotonic(),
                left: self.room,
            };
        }
        let anchor = Anchor::now();
        let taken = self.take(&anchor, printer)?;
        let more = taken == BATCH;
        self.turn.left = if more {
            self.turn.left.saturating_sub(taken)
        } else {
            0
        };
        // Before that there are older events to come.
        if self.turn.left == 0 {
            self.engine.finish_due(self.turn.now, &anchor, printer);
        }
        printer.push(&mut self.account);
        for (destination, netns) in self.engine.take_routes() {
            self.loaded.route(destination, netns);
        }
        Ok(more)
    }

    /// Takes what is in the ring into the join.
    fn take(&mut self, anchor: &Anchor, printer: &mut Printer) -> Result<usize, Failure> {
        let Self {
            loaded,
            engine,
            account,
            ..
        } = self;
        let taken = loaded.ring.drain(BATCH, |record| {
            let (events, new) = match decode::decode(record) {
                Some(Record::Event(event)) => {
                    engine.event(event, &mut Proc, anchor, printer);
                    (1, 1)
                }
                Some(Record::Note(note)) => {
                    engine.note(note, &mut Proc, anchor, printer);
                    (1, 1)
                }
                Some(Record::Packet(packet)) => {
                    engine.packet(packet, anchor, printer);
                    (1, 1)
                }
                Some(Record::Answer(answer)) => {
                    engine.answer(answer, anchor, printer);
                    (1, 1)
                }
                Some(Record::Story(story)) => (story.events(), engine.story(story, &mut Proc)),
                Some(Record::Ended(ended)) => {
                    let new = engine.ended_story(ended, &mut Proc, anchor, printer);
                    (ended.events(), new)
                }
                None => (0, 0),
            };
            account.told(events.into(), new);
        });
        if account.kernel(loaded.counters()?) {
            engine.lost(clock::monotonic());
        }
        account.evicted = engine.evicted_events();
        account.unseen = engine.unseen();
        Ok(taken)
    }

    /// Looks among the open connections for the other end of some that ended, for who sent some a reset, and for hooks that were
    /// skipped, unless that was done a moment ago.
    fn find_peers(&mut self, printer: &mut Printer) -> Result<(), Failure> {
        if !self.engine.is_asking() || !self.looked.has_rested() {
            return Ok(());
        }
        let began = clock::worked();
        if self.engine.seeks_ends() {
            self.each_open(|engine, story| engine.offer(story, &mut Proc))?;
        }
        self.find_senders()?;
        // A story that was told since the ring was last drained is open no longer, but in the ring.
        let anchor = Anchor::now();
        let mut left = self.room;
        while left > 0 && self.take(&anchor, printer)? == BATCH {
            left = left.saturating_sub(BATCH);
        }
        if self.engine.seeks_count() {
            self.count_missed();
        }
        self.engine.answered(&anchor, printer);
        printer.push(&mut self.account);
        self.looked = Pause::after(began).at_most(LOOK_REST);
        Ok(())
    }

    /// Looks among the resets that were not asked for, for those that some that ended received.
    fn find_senders(&mut self) -> Result<(), Failure> {
        let Self { loaded, engine, .. } = self;
        if !engine.seeks_senders() {
            return Ok(());
        }
        let resets = loaded.resets.all().map_err(|error| {
            let message = format!("cannot read the resets that the kernel side keeps: {error}");
            Failure::new(Code::Failure, message)
        })?;
        engine.offer_resets(&resets, &mut Proc);
        Ok(())
    }

    /// Hands the story of every open connection to the join, which says how many of its events are new.
    fn each_open(&mut self, take: impl Fn(&mut Engine, &Story) -> u64) -> Result<(), Failure> {
        let Self {
            loaded,
            engine,
            account,
            ..
        } = self;
        let read = loaded.stories.each(|story| {
            account.read_ahead(take(engine, story));
        });
        read.map_err(|error| {
            let message =
                format!("cannot read the connections that the kernel side keeps: {error}");
            Failure::new(Code::Failure, message)
        })
    }

    /// Scans every open file for sockets and who holds them, draining between the steps.
    fn scan(&mut self, printer: &mut Printer) -> Result<(), Failure> {
        let began = clock::worked();
        if let Some(mut holders) = self.loaded.holders() {
            let mut bytes = [0; SCAN_STEP];
            while matches!(holders.read(&mut bytes), Ok(1..)) {
                self.drain(printer)?;
                self.find_peers(printer)?;
            }
            self.turn.left = 0;
            while self.drain(printer)? && self.turn.left > 0 {}
            self.engine.scanned();
        }
        self.scanned = Pause::after(began);
        Ok(())
    }

    /// Finds what is older than the tracer, after the hooks are live, so that nothing falls between.
    pub fn take_stock(&mut self, printer: &mut Printer) -> Result<(), Failure> {
        self.engine.set_snapshot(true);
        self.scan(printer)?;
        self.engine.snapshot_done();
        Ok(())
    }

    /// Looks for owners that nothing else has named, unless that was done a moment ago.
    fn find_owners(&mut self, printer: &mut Printer) -> Result<(), Failure> {
        if self.scanned.has_rested() && self.engine.take_owner_missing(clock::monotonic()) {
            self.scan(printer)?;
        }
        Ok(())
    }

    /// Traces until told to stop, to the final account.
    pub async fn follow(
        &mut self,
        settings: &Settings,
        printer: &mut Printer,
        stop: &mut Stop,
    ) -> Result<(), Failure> {
        let attention = self
            .loaded
            .ring
            .attention()
            .map_err(|error| cannot_wait(&error))?;
        // SAFETY: an `OwnedFd` stays open and the same until it is dropped, and nothing takes it out.
        let attention = unsafe { AsyncFd::register_with_interest(attention, Interest::READABLE) }
            .map_err(|error| cannot_wait(&error.into()))?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = settings.duration.map(|duration| Instant::now() + duration);
        let mut account_due = settings
            .stats_interval
            .map(|interval| Instant::now() + interval);
        let mut account_told = Instant::now();
        let mut counted = account_told;
        let mut more = false;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                ready = attention.readable() => ready.map_err(|error| cannot_wait(&error))?.clear_ready(),
                () = stop.asked() => break,
                () = printer.ended() => break,
                // Not at once: the others are seen to in between.
                () = tokio::task::yield_now(), if more => {}
            }
            more = self.drain(printer)?;
            self.find_owners(printer)?;
            self.find_peers(printer)?;
            if end.is_some_and(|end| Instant::now() >= end) || printer.is_unread() {
                break;
            }
            let now = Instant::now();
            if now - counted >= NEWS {
                counted = now;
                self.count_missed();
            }
            let due = account_due.is_some_and(|due| now >= due);
            let news = self.account.has_news() && now - account_told >= NEWS;
            if due || news {
                printer.account(&mut self.account, Anchor::now());
                account_told = now;
                account_due = settings.stats_interval.map(|interval| now + interval);
            }
        }
        self.wind_up(printer)
    }

    /// Asks how many events the kernel kept from the hooks.
    fn count_missed(&mut self) {
        // Read first: none that was skipped before it is left out.
        self.engine.counted(clock::monotonic());
        let missed = self.loaded.missed().unwrap_or_default();
        if missed > self.account.missed {
            self.account.missed = missed;
            self.engine.skipped(clock::monotonic());
        }
    }

    /// Takes what is left, then gives the final account.
    fn wind_up(&mut self, printer: &mut Printer) -> Result<(), Failure> {
        self.engine.stop(clock::monotonic());
        let end = Instant::now() + STAY;
        while Instant::now() < end && !printer.is_unread() {
            let more = self.drain(printer)?;
            self.find_peers(printer)?;
            if !more {
                std::thread::sleep(STAY_TICK);
            }
        }
        self.count_missed();
        self.loaded.detach();
        let end = Instant::now() + LAST;
        while self.drain(printer)? || self.account.waiting() > 0 && Instant::now() < end {}
        let anchor = Anchor::now();
        // What is open stays untold, but was seen.
        self.each_open(|engine, story| engine.story(story, &mut Proc))?;
        // What waits goes on waiting until it was looked for.
        let all_ended = clock::monotonic() + HOLD_NS;
        self.engine.finish_due(all_ended, &anchor, printer);
        self.find_senders()?;
        self.engine.answered(&anchor, printer);
        self.engine.finish_due(u64::MAX, &anchor, printer);
        self.account.unseen = self.engine.unseen();
        printer.push(&mut self.account);
        printer.drain(&mut self.account);
        printer.account(&mut self.account, anchor);
        Ok(())
    }
}
