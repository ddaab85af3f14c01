//! Writes a recording while it is made: in a thread of its own, so that no tick waits for a disk.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::file::{Appender, Session, Source};
use super::part::Part;
use super::{Ending, NewProcess};

/// Parts of each process that may wait for a slow disk; what comes then stays with the recorder.
const MOST_WAITING: usize = 4;

/// A recording that is being written.
pub struct Stream {
    messages: Sender<Message>,
    state: Arc<State>,
    file: File,
    thread: JoinHandle<()>,
    processes: u32,
}

enum Message {
    Process(Box<NewProcess>),
    Part(u32, Box<Part>),
    Close(u32, Ending, Duration),
}

#[derive(Default)]
struct State {
    /// Bytes of whole blocks.
    length: AtomicU64,
    /// Parts that were handed over, and those of them that are done with.
    handed_over: AtomicUsize,
    done: AtomicUsize,
    error: Mutex<Option<Error>>,
}

/// What has been handed over by some moment, to be read while the rest is being written.
pub struct Written {
    state: Arc<State>,
    file: File,
    handed_over: usize,
}

/// How often to see whether it is written, and for how long.
const POLL: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(10);

impl Written {
    /// What of it is written, once that is all or for long enough.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn source(self) -> Result<Source> {
        let began = Instant::now();
        while self.state.done.load(Ordering::Acquire) < self.handed_over && began.elapsed() < PATIENCE {
            std::thread::sleep(POLL);
        }
        Ok(Source::file(self.file)?.until(self.state.length.load(Ordering::Acquire)))
    }
}

impl Stream {
    /// Begins a recording. If it is to be kept, each part is on the disk before the next one is written.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn start(file: File, is_kept: bool, session: &Session) -> Result<Self> {
        let appender = Appender::new(file.try_clone()?, session)?;
        let state = Arc::new(State::default());
        state.length.store(appender.length(), Ordering::Release);
        let (messages, received) = channel();
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || write_all(appender, is_kept, &received, &shared))?;
        Ok(Stream { messages, state, file, thread, processes: 0 })
    }

    /// Whether what was handed over so far has been written, or nearly so.
    pub fn is_ready(&self) -> bool {
        let waiting =
            self.state.handed_over.load(Ordering::Acquire) - self.state.done.load(Ordering::Acquire);
        waiting < MOST_WAITING * self.processes.max(1) as usize
    }

    /// Whether nothing can be written any more; [`Stream::finish`] says why.
    pub fn has_failed(&self) -> bool {
        self.state.error().is_some()
    }

    /// Begins the recording of a process and answers its number: they are numbered from 0.
    pub fn add_process(&mut self, process: NewProcess) -> u32 {
        self.send(Message::Process(Box::new(process)));
        self.processes += 1;
        self.processes - 1
    }

    /// Writes what has come of a process, soon.
    pub fn append(&self, process: u32, part: Part) {
        self.send(Message::Part(process, Box::new(part)));
    }

    /// Ends what there is of a process.
    pub fn close(&self, process: u32, ending: Ending, end: Duration) {
        self.send(Message::Close(process, ending, end));
    }

    fn send(&self, message: Message) {
        self.state.handed_over.fetch_add(1, Ordering::AcqRel);
        // The thread ends after this does.
        let _ = self.messages.send(message);
    }

    /// What has been handed over by now.
    ///
    /// # Errors
    /// When the file cannot be opened a second time.
    pub fn so_far(&self) -> Result<Written> {
        let handed_over = self.state.handed_over.load(Ordering::Acquire);
        Ok(Written { state: Arc::clone(&self.state), file: self.file.try_clone()?, handed_over })
    }

    /// Waits until everything is written. Answers what was, and what was in the way of the rest.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn finish(self) -> Result<(Source, Option<Error>)> {
        drop(self.messages);
        let ended = self.thread.join();
        let source = Source::file(self.file)?.until(self.state.length.load(Ordering::Acquire));
        let error = self.state.error().take();
        let error = error.or_else(|| ended.err().map(|_| Error::other("the thread that writes it ended")));
        Ok((source, error))
    }
}

impl State {
    fn error(&self) -> std::sync::MutexGuard<'_, Option<Error>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_all(mut appender: Appender<File>, is_kept: bool, messages: &Receiver<Message>, state: &State) {
    for message in messages {
        if state.error().is_none() {
            match write(&mut appender, is_kept, &message) {
                Ok(()) => state.length.store(appender.length(), Ordering::Release),
                Err(error) => {
                    // What is whole stays whole.
                    let _ = appender.get_ref().set_len(appender.length());
                    *state.error() = Some(error);
                }
            }
        }
        state.done.fetch_add(1, Ordering::AcqRel);
    }
}

fn write(appender: &mut Appender<File>, is_kept: bool, message: &Message) -> Result<()> {
    match message {
        Message::Process(process) => {
            appender.add_process(process)?;
        }
        Message::Part(process, part) => appender.append(*process, part)?,
        Message::Close(process, ending, end) => appender.close(*process, *ending, *end)?,
    }
    if is_kept {
        match appender.get_ref().sync_data() {
            // Some file systems cannot.
            Err(error) if !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}
