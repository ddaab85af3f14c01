//! Why to stop recording: signals and the target's end, watched for by a thread of their own. And the signal that asks for
//! a snapshot.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Signal as RustixSignal, pidfd_send_signal};

use super::print_error;
use super::privileges::Privileges;
use crate::recording::Ending;

/// `SI_KERNEL` (Linux `include/uapi/asm-generic/siginfo.h`): the signal comes from the terminal, which sends
/// it to the whole foreground process group.
const FROM_THE_TERMINAL: i32 = 0x80;

const GO_ON: u8 = 0;
const INTERRUPTED: u8 = 1;
const TARGET_EXITED: u8 = 2;

/// Whether to go on.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    reason: Arc<AtomicU8>,
    wants_snapshot: Arc<AtomicBool>,
}

/// What a signal to gilspy means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnSignal {
    /// Stop recording.
    Stop,
    /// It is meant for the program that gilspy started; recording goes on until that ends.
    PassOn,
}

impl Stop {
    /// Why to stop, if at all.
    pub(super) fn reason(&self) -> Option<Ending> {
        match self.reason.load(Ordering::Relaxed) {
            GO_ON => None,
            TARGET_EXITED => Some(Ending::TargetExited),
            _ => Some(Ending::Interrupted),
        }
    }

    /// Whether pictures of what is recorded so far were asked for since this was called last.
    pub(super) fn wants_snapshot(&self) -> bool {
        self.wants_snapshot.swap(false, Ordering::Relaxed)
    }

    fn set(&self, reason: u8) {
        // The first reason stands.
        let _ = self.reason.compare_exchange(GO_ON, reason, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Watches for signals and for the end of all processes behind these pidfds, until the program ends. A signal is passed on
/// to the first. The thread keeps no more than these privileges.
pub(super) fn watch(pidfds: Vec<OwnedFd>, on_signal: OnSignal, privileges: Privileges) -> Result<Stop> {
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1];
    let signals: SigSet = signals.into_iter().collect();
    signals.thread_block().context("cannot block signals")?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).context("cannot wait for signals")?;
    let stop = Stop::default();
    let watched = stop.clone();
    std::thread::Builder::new()
        .name("watcher".into())
        .spawn(move || {
            if let Err(error) = privileges.reduce() {
                print_error(&error);
            }
            watch_all(pidfds, &signals, on_signal, &watched);
        })
        .context("cannot start a thread")?;
    Ok(stop)
}

fn watch_all(mut pidfds: Vec<OwnedFd>, signals: &SignalFd, on_signal: OnSignal, stop: &Stop) {
    while let Some(first) = pidfds.first() {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let all = [signals.as_fd()].into_iter().chain(pidfds.iter().map(OwnedFd::as_fd));
        let mut fds: Vec<PollFd<'_>> = all.map(readable).collect();
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        let mut is_readable = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect::<Vec<_>>().into_iter();
        if is_readable.next().unwrap_or(false) {
            take_signal(first, signals, on_signal, stop);
        }
        pidfds.retain(|_| !is_readable.next().unwrap_or(false));
    }
    stop.set(TARGET_EXITED);
}

fn take_signal(pidfd: &OwnedFd, signals: &SignalFd, on_signal: OnSignal, stop: &Stop) {
    let Ok(Some(signal)) = signals.read_signal() else {
        return;
    };
    if signal.ssi_signo == Signal::SIGUSR1 as u32 {
        stop.wants_snapshot.store(true, Ordering::Relaxed);
    } else if on_signal == OnSignal::Stop {
        stop.set(INTERRUPTED);
    } else if signal.ssi_code != FROM_THE_TERMINAL
        && let Some(number) = RustixSignal::from_named_raw(signal.ssi_signo as i32)
    {
        // A program that has just ended needs no signal.
        let _ = pidfd_send_signal(pidfd, number);
    }
}
