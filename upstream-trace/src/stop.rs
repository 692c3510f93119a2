//! What a run waits in, and how it is told to end: the signals for that.
//!
//! Must not know: what runs.

use std::{io, mem::MaybeUninit, ptr};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    exit::{Code, Failure},
    limits::spare_descriptors,
};

/// What waits for a run, on the thread that it runs on.
pub fn runtime() -> Result<Runtime, Failure> {
    spare_descriptors()?;
    let built = Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Failure::new(Code::Failure, format!("cannot start: {error}")))
}

/// The signals that end a run. Listened to before the tracer says that it is there, so that none is lost.
#[derive(Debug)]
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
    /// Of a terminal that is gone; `None`: whoever started this wants it to go on then (`nohup`).
    hangup: Option<Signal>,
}

impl Stop {
    /// Listens from now on.
    pub fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| cannot_wait(&error));
        // A file that may grow no more is an error of the write, not the end of the process.
        ignore(libc::SIGXFSZ);
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: if is_ignored(libc::SIGHUP) {
                None
            } else {
                Some(listen(SignalKind::hangup())?)
            },
        })
    }

    /// Waits until somebody wants the run to end. May be cancelled at any time.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            Some(()) = async { self.hangup.as_mut()?.recv().await } => {}
        }
    }
}

fn ignore(signal: libc::c_int) {
    // SAFETY: no handler is installed that could run at a wrong moment.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: no new action is given, and the old one has a place to be written to.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: zeroed, and any bits are valid for it.
    let action = unsafe { action.assume_init() };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Waiting itself failed.
pub fn cannot_wait(error: &io::Error) -> Failure {
    Failure::new(Code::Failure, format!("cannot wait: {error}"))
}
