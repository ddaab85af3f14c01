//! One tick: who holds each GIL of a process, executing what.
//!
//! A tick is one system call for each GIL in the steady state: the GIL's state, the stack of the thread
//! that held it last time, read twice, and the GIL's state again. Threads and their names change rarely;
//! [`Sampler::refresh`] looks for them a few times a second.

mod clock;
mod threads;

use std::collections::HashMap;

pub use clock::{Clock, Wakeup};
pub use threads::{KnownThread, Threads};

use crate::cpython::code::CodeCache;
use crate::cpython::frames::{Consistency, RawFrame, StackReader};
use crate::cpython::gil::{GIL_BYTES, GilReading, GilState, gil_address};
use crate::cpython::locate::Located;
use crate::cpython::threads::Interpreter;
use crate::sample::{Frame, GilSample, SampledHolder, ThreadIndex};
use crate::target::memory::{ReadError, ReadMemory, Segment};
use crate::units::{Address, Pid};

/// How often one GIL is read in one tick before its state is `unknown`.
const ATTEMPTS: usize = 8;

/// Stack readers kept at most; beyond it they start anew.
const MAX_READERS: usize = 4096;

/// Looks at one process, tick by tick.
pub struct Sampler<M> {
    memory: M,
    located: Located,
    threads: Threads,
    gils: Vec<Gil>,
    readers: HashMap<Address, StackReader>,
    codes: CodeCache,
    stack: Vec<RawFrame>,
    frames: Vec<Frame>,
}

/// One GIL and the interpreters that share it.
#[derive(Debug, Clone)]
pub struct Gil {
    /// Where it is.
    address: Address,
    /// The interpreters that share it, the main one first.
    pub interpreters: Vec<Interpreter>,
    /// Who held it when it was last looked at: the thread whose stack is read along with it.
    last_holder: Option<Address>,
}

/// What a tick saw, with the stack still as addresses.
struct Look {
    reading: Option<GilReading>,
    state: GilState,
    /// How much of the holder's stack was read.
    stack: Consistency,
}

impl<M: ReadMemory> Sampler<M> {
    /// A sampler of the interpreter that was found in process `pid`.
    ///
    /// # Errors
    /// When the process is gone, or what was found there is no longer there.
    pub fn new(pid: Pid, memory: M, located: Located) -> Result<Self, ReadError> {
        let threads = Threads::new(pid);
        let mut sampler = Sampler {
            memory,
            located,
            threads,
            gils: Vec::new(),
            readers: HashMap::new(),
            codes: CodeCache::default(),
            stack: Vec::new(),
            frames: Vec::new(),
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

    /// Looks for interpreters, threads and names anew.
    ///
    /// # Errors
    /// When the process is gone or refuses.
    pub fn refresh(&mut self) -> Result<(), ReadError> {
        let interpreters = self.located.interpreters(&self.memory)?;
        for &interpreter in interpreters.iter().rev() {
            let gil = gil_address(
                &self.memory,
                &self.located.layout.gil,
                self.located.runtime,
                interpreter.address,
            );
            match gil {
                Ok(gil) => self.add_interpreter(gil, interpreter),
                Err(error @ (ReadError::Gone | ReadError::Denied)) => return Err(error),
                // An interpreter that is just ending.
                Err(_) => {}
            }
        }
        for gil in &mut self.gils {
            gil.interpreters.retain(|known| interpreters.contains(known));
        }
        self.threads.refresh(&self.memory, &self.located.layout, &interpreters)
    }

    fn add_interpreter(&mut self, address: Address, interpreter: Interpreter) {
        let place = self.gils.iter().position(|gil| gil.address == address).unwrap_or_else(|| {
            self.gils.push(Gil { address, interpreters: Vec::new(), last_holder: None });
            self.gils.len() - 1
        });
        let known = &mut self.gils[place].interpreters;
        if !known.contains(&interpreter) {
            known.push(interpreter);
        }
    }

    /// Looks at one GIL (a place in [`Sampler::gils`]): who holds it, executing what.
    ///
    /// # Errors
    /// When the process is gone or refuses.
    pub fn tick(&mut self, gil: usize) -> Result<GilSample<'_>, ReadError> {
        let look = self.look(gil)?;
        let holder = match look.state {
            GilState::Held(holder) => self.holder(holder, look.stack)?,
            GilState::Free => SampledHolder::Nobody,
            GilState::Disabled => SampledHolder::Disabled,
            GilState::Unknown => SampledHolder::Unknown,
        };
        Ok(GilSample {
            holder,
            switch_number: look.reading.map(|reading| reading.switch_number),
            switch_interval: look.reading.map(|reading| reading.switch_interval),
        })
    }

    /// The stack of a thread, whatever it does; `None` where it ended or never stood still for long enough.
    ///
    /// # Errors
    /// When the process is gone or refuses.
    pub fn stack(&mut self, thread: ThreadIndex) -> Result<Option<&[Frame]>, ReadError> {
        let Some(known) = self.threads.all().get(thread.0 as usize) else {
            return Ok(None);
        };
        let mut reader = StackReader::new(known.thread_state);
        let consistency = reader.read(&self.memory, &self.located.layout)?;
        if consistency == Consistency::None {
            return Ok(None);
        }
        self.codes.name_stack(&self.memory, &self.located.layout, reader.stack(), &mut self.frames)?;
        mark_unread(consistency, &mut self.frames);
        Ok(Some(&self.frames))
    }

    /// Names a holder and its stack. A holder that is no thread of the process is none: `unknown`.
    fn holder(&mut self, holder: Address, consistency: Consistency) -> Result<SampledHolder<'_>, ReadError> {
        let layout = &self.located.layout;
        let Some(thread) = self.threads.index_of(&self.memory, layout, holder)? else {
            return Ok(SampledHolder::Unknown);
        };
        if consistency == Consistency::None {
            return Ok(SampledHolder::Thread { thread, stack: None });
        }
        self.codes.name_stack(&self.memory, layout, &self.stack, &mut self.frames)?;
        mark_unread(consistency, &mut self.frames);
        Ok(SampledHolder::Thread { thread, stack: Some(&self.frames) })
    }

    /// Reads until GIL and stack are consistent, or the attempts are used up. The GIL alone being
    /// consistent is the second best answer.
    fn look(&mut self, gil: usize) -> Result<Look, ReadError> {
        let mut best = Look { reading: None, state: GilState::Unknown, stack: Consistency::None };
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
        if let Some(reader) = self.readers.get(&holder).filter(|_| consistency != Consistency::None) {
            self.stack.extend_from_slice(reader.stack());
        }
    }

    fn look_without_stack(&mut self, gil: usize) -> Result<Look, ReadError> {
        let (mut before, mut after) = ([0; GIL_BYTES], [0; GIL_BYTES]);
        let address = self.gils[gil].address;
        let mut segments = [Segment::new(address, &mut before), Segment::new(address, &mut after)];
        self.memory.read_batch(&mut segments)?;
        let arrived = segments.iter().all(|segment| segment.arrived);
        Ok(self.judge(arrived, &before, &after))
    }

    fn look_with_stack(&mut self, gil: usize, holder: Address) -> Result<Look, ReadError> {
        if self.readers.len() > MAX_READERS {
            self.readers.clear();
        }
        let reader = self.readers.entry(holder).or_insert_with(|| StackReader::new(holder));
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
        let mut look = self.judge(enclosed.enclosing_arrived, &before, &after);
        if look.state == GilState::Held(holder) {
            look.stack = enclosed.consistency;
        }
        if matches!(look.state, GilState::Unknown) && !enclosed.enclosing_arrived {
            // A holder that ended takes its memory along: look at the GIL alone.
            self.gils[gil].last_holder = None;
        }
        Ok(look)
    }

    /// What two readings of a GIL say together: its state where they agree, else `unknown`.
    fn judge(&self, arrived: bool, before: &[u8; GIL_BYTES], after: &[u8; GIL_BYTES]) -> Look {
        let decode = |bytes| GilReading::decode(bytes, &self.located.layout.gil);
        match (arrived, decode(before), decode(after)) {
            (true, Some(before), Some(after)) if before.agrees_with(&after) => {
                Look { reading: Some(after), state: after.state(), stack: Consistency::None }
            }
            _ => Look { reading: None, state: GilState::Unknown, stack: Consistency::None },
        }
    }
}

/// Says so where the inner calls of a stack came and went too fast to be read.
fn mark_unread(consistency: Consistency, frames: &mut Vec<Frame>) {
    if consistency == Consistency::Outer {
        frames.insert(0, Frame { function: "<unknown>".into(), file: "<unknown>".into(), line: None });
    }
}
