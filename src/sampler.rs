//! One tick: who holds each GIL of a process, executing what.
//!
//! A tick is one system call for each GIL in the steady state: the GIL's state, the stack of the thread
//! that held it last time, read twice, and the GIL's state again. What changes rarely is looked for a few
//! times a second: threads and their names by [`Sampler::refresh`], code objects by [`Sampler::confirm`].

pub mod bounds;
mod clock;
mod native;
mod overhead;
mod readers;
mod stacks;
mod threads;
mod watches;

use std::collections::HashMap;
use std::time::Instant;

pub use clock::{Clock, Wakeup};
pub use native::NativeThreads;
pub use overhead::{Exceeded, Overhead, own_cpu};
pub use threads::{KnownThread, Threads};

use crate::cpython::frames::{Consistency, RawFrame};
use crate::cpython::gil::{GIL_BYTES, GilReading, GilState, MAX_WAITERS, gil_address, musl_waiters};
use crate::cpython::layout::GilLayout;
use crate::cpython::locate::Located;
use crate::cpython::threads::{Interpreter, ThreadHeader, read_thread};
use crate::sample::{GilSample, Holder, StackIndex, StackTable, ThreadIndex, ThreadSample, ThreadState};
use crate::target::entry::ProcEntry;
use crate::target::memory::budget::Budgeted;
use crate::target::memory::{ReadError, ReadMemory, Segment};
use crate::units::Address;
use readers::Readers;
use stacks::Stacks;
use watches::{Gils, Watches};

/// How often one GIL is read in one tick before its state is `unknown`.
const ATTEMPTS: usize = 8;

/// GILs that are looked at, those of interpreters that have ended included; later ones are `unknown`.
const MAX_GILS: usize = 4096;

/// Looks at one process, tick by tick.
pub struct Sampler<M> {
    process: ProcEntry,
    memory: Budgeted<M>,
    located: Located,
    threads: Threads,
    gils: Vec<Gil>,
    /// The GIL of each interpreter, by their numbers: the first one of its GILs.
    gil_of: HashMap<i64, u16>,
    readers: Readers,
    stacks: Stacks,
    stack: Vec<RawFrame>,
    watches: Watches,
    /// The thread with which a tick begins: the first one that the tick before read too much to look at.
    begin_with: ThreadIndex,
    ticked_at: Option<Instant>,
    /// Where threads sleep that wait for a GIL, each with its place, in a program linked with musl.
    musl_waiters: Vec<(u16, Address)>,
    /// Of each GIL, by its place, the thread state of a thread that is blocked.
    blocked: HashMap<u16, Address>,
    thread_samples: Vec<ThreadSample>,
    gil_samples: Vec<GilSample>,
}

/// One GIL and the interpreters that share it.
#[derive(Debug, Clone)]
pub struct Gil {
    address: Address,
    /// The interpreters that share it, the main one first; none once all of them have ended.
    pub interpreters: Vec<Interpreter>,
    /// Who held it when it was last looked at: the thread whose stack is read along with it.
    last_holder: Option<Address>,
}

/// What a tick saw, with the stack still as addresses.
struct Look {
    reading: Option<GilReading>,
    state: GilState,
    /// The holder's thread state, where it was read along.
    thread: Option<ThreadHeader>,
    /// How much of the holder's stack was read.
    stack: Consistency,
}

impl Look {
    const UNKNOWN: Look =
        Look { reading: None, state: GilState::Unknown, thread: None, stack: Consistency::None };
}

impl Gil {
    /// Where it is.
    pub fn address(&self) -> Address {
        self.address
    }

    fn is_alive(&self) -> bool {
        !self.interpreters.is_empty()
    }
}

impl<M: ReadMemory> Sampler<M> {
    /// A sampler of the interpreter that was found in a process.
    ///
    /// # Errors
    /// When the process is gone, or what was found there is no longer there.
    pub fn new(process: ProcEntry, memory: M, located: Located) -> Result<Self, ReadError> {
        let threads = Threads::new(process.clone());
        let mut sampler = Sampler {
            process,
            memory: Budgeted::new(memory, bounds::REFRESH),
            located,
            threads,
            gils: Vec::new(),
            gil_of: HashMap::new(),
            readers: Readers::default(),
            stacks: Stacks::default(),
            stack: Vec::new(),
            watches: Watches::default(),
            begin_with: ThreadIndex(0),
            ticked_at: None,
            musl_waiters: Vec::new(),
            blocked: HashMap::new(),
            thread_samples: Vec::new(),
            gil_samples: Vec::new(),
        };
        sampler.refresh()?;
        Ok(sampler)
    }

    /// The GILs of the process, as of the last [`Sampler::refresh`].
    pub fn gils(&self) -> &[Gil] {
        &self.gils
    }

    /// The threads met so far.
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    /// Every stack seen so far; a [`StackIndex`] is a place in this table.
    pub fn stacks(&self) -> &StackTable {
        self.stacks.table()
    }

    /// Every stack seen, when there is nothing more to see.
    pub fn into_stacks(self) -> StackTable {
        self.stacks.into_table()
    }

    /// Makes sure that the code objects that were trusted since the last time are still what they were.
    /// Answers the stacks that are in doubt: ticks since the last time that saw them may be wrong.
    ///
    /// # Errors
    /// When the process is gone or refuses.
    pub fn confirm(&mut self) -> Result<Vec<StackIndex>, ReadError> {
        self.memory.allow(bounds::CONFIRMATION);
        self.stacks.confirm(&self.memory, &self.located.layout)
    }

    /// Looks for interpreters, threads and names anew.
    ///
    /// # Errors
    /// When the process is gone or refuses.
    pub fn refresh(&mut self) -> Result<(), ReadError> {
        self.memory.allow(bounds::REFRESH);
        let refreshed = self.look_for_all();
        // For the stacks that are asked for by themselves until something else is done.
        self.memory.allow(bounds::STACKS);
        self.stacks.begin_tick();
        match refreshed {
            // What is left over keeps what was known of it.
            Err(ReadError::Exhausted) => Ok(()),
            refreshed => refreshed,
        }
    }

    fn look_for_all(&mut self) -> Result<(), ReadError> {
        let interpreters = self.located.interpreters(&self.memory)?;
        for gil in &mut self.gils {
            gil.interpreters.retain(|known| interpreters.contains(known));
        }
        for &interpreter in interpreters.iter().rev() {
            let gil = gil_address(
                &self.memory,
                &self.located.layout.gil,
                self.located.runtime,
                interpreter.address,
            );
            match gil {
                Ok(gil) => self.add_interpreter(gil, interpreter),
                Err(error) if error.is_final() => return Err(error),
                // An interpreter that is just ending.
                Err(_) => {}
            }
        }
        self.gil_of.clear();
        for (gil, place) in self.gils.iter().zip(0_u16..) {
            for interpreter in &gil.interpreters {
                self.gil_of.entry(interpreter.id).or_insert(place);
            }
        }
        self.threads.refresh(&self.memory, &self.located.layout, &interpreters)
    }

    /// A GIL that no interpreter has any more is another one than that which has its place in memory now.
    fn add_interpreter(&mut self, address: Address, interpreter: Interpreter) {
        let is_it = |gil: &Gil| gil.address == address && gil.is_alive();
        let place = match self.gils.iter().position(is_it) {
            Some(place) => place,
            None if self.gils.len() < MAX_GILS => {
                self.gils.push(Gil { address, interpreters: Vec::new(), last_holder: None });
                self.gils.len() - 1
            }
            None => return,
        };
        let known = &mut self.gils[place].interpreters;
        if !known.contains(&interpreter) {
            known.push(interpreter);
        }
    }

    /// Looks at one GIL (a place in [`Sampler::gils`]): who holds it, executing what.
    ///
    /// # Errors
    /// When the process is gone or refuses.
    pub fn tick(&mut self, gil: usize) -> Result<GilSample, ReadError> {
        self.begin_tick()?;
        self.tick_gil(gil)
    }

    /// What follows may read and compute so much.
    fn begin_tick(&mut self) -> Result<(), ReadError> {
        if self.stacks.has_to_confirm() {
            self.memory.allow(bounds::CONFIRMATION);
            self.stacks.look_again(&self.memory, &self.located.layout)?;
        }
        self.memory.allow(bounds::TICK);
        self.stacks.begin_tick();
        Ok(())
    }

    fn tick_gil(&mut self, gil: usize) -> Result<GilSample, ReadError> {
        if !self.gils[gil].is_alive() {
            let holder = if self.located.free_threaded { Holder::Disabled } else { Holder::Nobody };
            return Ok(GilSample { holder, switch_number: None, switch_interval: None });
        }
        let look = match self.look(gil) {
            Err(ReadError::Exhausted) => Look::UNKNOWN,
            look => look?,
        };
        let holder = match look.state {
            GilState::Held(holder) => match self.holder(holder, &look) {
                Err(ReadError::Exhausted) => Holder::Unknown,
                holder => holder?,
            },
            GilState::Free => Holder::Nobody,
            GilState::Disabled => Holder::Disabled,
            GilState::Unknown => Holder::Unknown,
        };
        Ok(GilSample {
            holder,
            switch_number: look.reading.map(|reading| reading.switch_number),
            switch_interval: look.reading.and_then(|reading| reading.plausible_interval()),
        })
    }

    /// Looks at all GILs.
    ///
    /// # Errors
    /// When the process is gone or refuses.
    pub fn tick_gils(&mut self) -> Result<&[GilSample], ReadError> {
        self.begin_tick()?;
        self.look_at_gils()?;
        Ok(&self.gil_samples)
    }

    fn look_at_gils(&mut self) -> Result<(), ReadError> {
        self.gil_samples.clear();
        for gil in 0..self.gils.len() {
            let sample = self.tick_gil(gil)?;
            self.gil_samples.push(sample);
        }
        Ok(())
    }

    /// Looks at all GILs and all threads. A thread that has not run since the last time is not read again.
    ///
    /// # Errors
    /// When the process is gone or refuses.
    pub fn tick_all(&mut self) -> Result<(&[GilSample], &[ThreadSample]), ReadError> {
        self.watches.update(&self.process, &self.threads);
        // What the kernel says comes first: a thread that runs in between has a stack that is newer.
        self.watches.look();
        self.begin_tick()?;
        self.look_at_gils()?;
        self.look_for_musl_waiters();
        let now = Instant::now();
        let gap = now.saturating_duration_since(self.ticked_at.replace(now).unwrap_or(now));
        let mut watches = std::mem::take(&mut self.watches);
        self.thread_samples.clear();
        self.blocked.clear();
        let mut left_over = None;
        for watched in watches.iter_mut_from(self.begin_with).filter(|watched| !watched.has_ended()) {
            let stack = match watched.stack {
                Some(stack) => stack,
                None => match self.held_stack(watched.thread) {
                    Some(stack) => stack,
                    None => self.stack(watched.thread)?,
                },
            };
            if self.memory.is_exhausted() {
                left_over.get_or_insert(watched.thread);
            }
            watched.stack = Some(stack).filter(|stack| *stack != StackIndex::UNKNOWN);
            let Some(known) = self.threads.get(watched.thread) else { continue };
            let layout = &self.located.layout;
            let header = || self.readers.get(known.current_state()?)?.thread(layout);
            let interpreter = known.current_interpreter();
            let gils = Gils {
                known: &self.gils,
                by_interpreter: &self.gil_of,
                samples: &self.gil_samples,
                size: layout.gil.size,
                musl_waiters: &self.musl_waiters,
                now,
                gap,
            };
            let state = watched.state(interpreter, || header()?.is_attached, gils);
            if self.located.free_threaded
                && let ThreadState::Blocked(_) = state
                && let (Some(gil), Some(state)) = (gils.of(interpreter), known.current_state())
            {
                self.blocked.entry(gil).or_insert(state);
            }
            self.threads.count(watched.thread, interpreter);
            let (thread, times) = (watched.thread, watched.times());
            self.thread_samples.push(ThreadSample { thread, state, stack, times });
        }
        self.watches = watches;
        self.begin_with = left_over.unwrap_or(ThreadIndex(0));
        self.look_for_stops()?;
        Ok((&self.gil_samples, &self.thread_samples))
    }

    /// Whether one thread has stopped all others: then each that is blocked is marked so, which it will find when it
    /// wakes (`park_detached_threads` in CPython 3.13 `Python/pystate.c`). It is not read again for its own sake.
    fn look_for_stops(&mut self) -> Result<(), ReadError> {
        for (&gil, &state) in &self.blocked {
            let sample = &mut self.gil_samples[usize::from(gil)];
            if sample.holder != Holder::Disabled {
                continue;
            }
            match read_thread(&self.memory, &self.located.layout, state) {
                Ok(Some(header)) if header.is_suspended == Some(true) => sample.holder = Holder::Stopped,
                Err(error @ (ReadError::Gone | ReadError::Denied)) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn look_for_musl_waiters(&mut self) {
        self.musl_waiters.clear();
        if !self.located.is_musl {
            return;
        }
        for (place, gil) in self.gils.iter().enumerate() {
            let most = MAX_WAITERS.saturating_sub(self.musl_waiters.len());
            let found = musl_waiters(&self.memory, &self.located.layout.gil, gil.address, most);
            self.musl_waiters.extend(found.into_iter().map(|waiter| (place as u16, waiter)));
        }
    }

    /// The stack with which a thread was just seen to hold a GIL.
    fn held_stack(&self, wanted: ThreadIndex) -> Option<StackIndex> {
        self.gil_samples.iter().find_map(|sample| match sample.holder {
            Holder::Thread { thread, stack } if thread == wanted && stack != StackIndex::UNKNOWN => {
                Some(stack)
            }
            _ => None,
        })
    }

    /// The stack of a thread, whatever it does; [`StackIndex::UNKNOWN`] where it ended or never stood still
    /// for long enough, and where there was too much to read already.
    ///
    /// # Errors
    /// When the process is gone or refuses.
    pub fn stack(&mut self, thread: ThreadIndex) -> Result<StackIndex, ReadError> {
        if self.memory.is_exhausted() {
            return Ok(StackIndex::UNKNOWN);
        }
        match self.read_stack(thread) {
            Err(ReadError::Exhausted) => Ok(StackIndex::UNKNOWN),
            stack => stack,
        }
    }

    fn read_stack(&mut self, thread: ThreadIndex) -> Result<StackIndex, ReadError> {
        let layout = &self.located.layout;
        let Some(thread_state) = self.threads.current_state(&self.memory, layout, thread)? else {
            return Ok(StackIndex::UNKNOWN);
        };
        let reader = self.readers.of(thread_state, self.threads.tid_offset());
        match reader.read(&self.memory, layout)? {
            Consistency::None => Ok(StackIndex::UNKNOWN),
            Consistency::Outer | Consistency::Whole => {
                let stack = reader.stack().to_vec();
                self.stacks.name(&self.memory, layout, &stack, reader)
            }
        }
    }

    /// Names a holder and its stack. A holder that is no thread of the process is none: `unknown`.
    fn holder(&mut self, holder: Address, look: &Look) -> Result<Holder, ReadError> {
        let layout = &self.located.layout;
        let thread = match look.thread {
            Some(header) => self.threads.identify(&self.memory, layout, header),
            None => self.threads.index_of(&self.memory, layout, holder)?,
        };
        let Some(thread) = thread else { return Ok(Holder::Unknown) };
        let stack = match look.stack {
            Consistency::None => StackIndex::UNKNOWN,
            Consistency::Outer | Consistency::Whole => {
                let reader = self.readers.of(holder, self.threads.tid_offset());
                match self.stacks.name(&self.memory, layout, &self.stack, reader) {
                    Err(ReadError::Exhausted) => StackIndex::UNKNOWN,
                    stack => stack?,
                }
            }
        };
        Ok(Holder::Thread { thread, stack })
    }

    /// Reads until GIL and stack are consistent, or the attempts are used up. The GIL alone being
    /// consistent is the second best answer.
    fn look(&mut self, gil: usize) -> Result<Look, ReadError> {
        let mut best = Look::UNKNOWN;
        for _attempt in 0..ATTEMPTS {
            let look = match self.gils[gil].last_holder {
                Some(holder) => self.look_with_stack(gil, holder)?,
                None => self.look_without_stack(gil)?,
            };
            match look.state {
                GilState::Free | GilState::Disabled => return Ok(look),
                GilState::Held(holder) => {
                    self.gils[gil].last_holder = Some(holder);
                    if best.state == GilState::Unknown || look.stack > best.stack {
                        self.keep_stack(holder, look.stack);
                        best = look;
                    }
                    if best.stack == Consistency::Whole {
                        return Ok(best);
                    }
                }
                GilState::Unknown => {}
            }
        }
        Ok(best)
    }

    /// Keeps a stack before its reader is used again.
    fn keep_stack(&mut self, holder: Address, consistency: Consistency) {
        self.stack.clear();
        if let Some(reader) = self.readers.get(holder).filter(|_| consistency != Consistency::None) {
            self.stack.extend_from_slice(reader.stack());
        }
    }

    fn look_without_stack(&mut self, gil: usize) -> Result<Look, ReadError> {
        let (mut before, mut after) = ([0; GIL_BYTES], [0; GIL_BYTES]);
        let address = self.gils[gil].address;
        let mut segments = [Segment::new(address, &mut before), Segment::new(address, &mut after)];
        self.memory.read_batch(&mut segments)?;
        let arrived = segments.iter().all(|segment| segment.arrived);
        Ok(judge(&self.located.layout.gil, arrived, &before, &after))
    }

    fn look_with_stack(&mut self, gil: usize, holder: Address) -> Result<Look, ReadError> {
        let reader = self.readers.of(holder, self.threads.tid_offset());
        let (mut before, mut after) = ([0; GIL_BYTES], [0; GIL_BYTES]);
        let address = self.gils[gil].address;
        let layout = &self.located.layout;
        let enclosed = reader.read_between(
            &self.memory,
            layout,
            Segment::new(address, &mut before),
            Segment::new(address, &mut after),
        )?;
        if enclosed.consistency == Consistency::None {
            reader.learn(&self.memory, layout)?;
        }
        let mut look = judge(&layout.gil, enclosed.enclosing_arrived, &before, &after);
        if look.state == GilState::Held(holder) {
            look.stack = enclosed.consistency;
            look.thread = reader.thread(layout);
        }
        if matches!(look.state, GilState::Unknown) && !enclosed.enclosing_arrived {
            // A holder that ended takes its memory along: look at the GIL alone.
            self.gils[gil].last_holder = None;
        }
        Ok(look)
    }
}

/// What two readings of a GIL say together: its state where they agree, else `unknown`.
fn judge(layout: &GilLayout, arrived: bool, before: &[u8; GIL_BYTES], after: &[u8; GIL_BYTES]) -> Look {
    match (arrived, GilReading::decode(before, layout), GilReading::decode(after, layout)) {
        (true, Some(before), Some(after)) if before.agrees_with(&after) => {
            Look { reading: Some(after), state: after.state(), ..Look::UNKNOWN }
        }
        _ => Look::UNKNOWN,
    }
}
