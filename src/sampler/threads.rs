//! The threads met so far: which thread state belongs to which, what the kernel and Python call them.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::cpython::layout::Layout;
use crate::cpython::names::{NameReader, Names};
use crate::cpython::threads::{self, Interpreter, MAX_THREADS, PthreadTid, ThreadHeader, ThreadList};
use crate::sample::ThreadIndex;
use crate::target::entry::ProcEntry;
use crate::target::memory::{ReadError, ReadMemory};
use crate::target::tasks::{self, Tasks};
use crate::units::{Address, NamespaceTid, Tid};

/// How soon after one look for names another is worth its cost, when a new thread turns up.
const NAMES_AGE: Duration = Duration::from_millis(5);

/// How often to look whether threads have been renamed.
const RENAMED: Duration = Duration::from_secs(1);

/// For how long a thread without a thread state is still looked at: C code makes one for each call of Python, and drops
/// it afterwards (`PyGILState_Ensure`).
const LINGERS: Duration = Duration::from_secs(1);

/// C stacks are not larger: glibc's have 8 MiB, unless told otherwise.
const LARGEST_STACK: u64 = 64 << 20;

/// Threads of one process at most, those that have ended included: as many as are recorded.
const MOST_THREADS: usize = 1 << 20;

/// New thread states that one look takes over at most, save for the first: each costs a look into /proc.
const MOST_NEW: usize = 4096;

/// Bytes of the names of all threads at most; those that come later keep the kernel's.
const MOST_NAMES: usize = 32 << 20;

/// Interpreters of one thread that are told apart.
const MOST_INTERPRETERS: usize = 64;

/// A thread of the target. It has a thread state for each interpreter that it has been in, and runs with one of them at
/// a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownThread {
    /// Its thread states, in the order of first sight.
    states: SmallVec<[OwnState; 1]>,
    /// The one that it was last seen to run with.
    current: Address,
    /// The numbers of the interpreters that it has been in, each with the looks that saw it there; never empty.
    interpreters: SmallVec<[(i64, u32); 1]>,
    /// Its id as gilspy's namespace counts; `None` where it could not be found.
    pub tid: Option<Tid>,
    /// Its id as the target's namespace counts.
    pub namespace_tid: Option<NamespaceTid>,
    /// Its name in Python, else the kernel's.
    pub name: Option<String>,
    /// Whether it was there at the last look.
    pub is_alive: bool,
    pthread: u64,
}

/// A thread state of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OwnState {
    address: Address,
    /// Its interpreter's number.
    interpreter: i64,
    interpreter_address: Address,
    /// The refresh that saw it last.
    seen_at: u64,
}

impl KnownThread {
    /// The number of the interpreter that it was in most.
    pub fn interpreter(&self) -> i64 {
        // Of two that are equal the later one: it was called from the other.
        self.interpreters.iter().max_by_key(|(_, looks)| *looks).map_or(0, |(id, _)| *id)
    }

    /// The numbers of all interpreters that it has been in, in the order of first sight.
    pub fn interpreters(&self) -> impl Iterator<Item = i64> {
        self.interpreters.iter().map(|(id, _)| *id)
    }

    /// The number of the interpreter that it is in now, or was in last.
    pub fn current_interpreter(&self) -> i64 {
        let current = self.current_state();
        let current = self.states.iter().find(|state| Some(state.address) == current);
        current.map_or_else(|| self.interpreter(), |state| state.interpreter)
    }

    /// The thread state that it runs with now, or ran with last.
    pub(super) fn current_state(&self) -> Option<Address> {
        let current = self.states.iter().find(|state| state.address == self.current);
        current.or(self.states.last()).map(|state| state.address)
    }

    fn add_state(&mut self, state: OwnState) {
        self.states.push(state);
        self.current = state.address;
        if self.interpreters.iter().all(|(id, _)| *id != state.interpreter) {
            if self.interpreters.len() == MOST_INTERPRETERS {
                self.interpreters.remove(0);
            }
            self.interpreters.push((state.interpreter, 0));
        }
    }

    fn remove_state(&mut self, address: Address) {
        self.states.retain(|state| state.address != address);
    }
}

/// The threads of one process.
#[derive(Debug)]
pub struct Threads {
    process: ProcEntry,
    /// Those that have not ended, or only since the last refresh but one.
    known: BTreeMap<ThreadIndex, KnownThread>,
    /// How many were met so far: the number of the next one.
    met: usize,
    /// Those that had ended by the last refresh.
    ended: Vec<ThreadIndex>,
    by_thread_state: HashMap<Address, ThreadIndex>,
    /// The thread that has each descriptor, or had it last.
    by_descriptor: BTreeMap<u64, ThreadIndex>,
    /// Threads that have no thread state any more, and since when.
    lingering: Vec<(ThreadIndex, Instant)>,
    refreshes: u64,
    tasks: Tasks,
    pthread_tid: PthreadTid,
    interpreters: Vec<Interpreter>,
    lists: Vec<ThreadList>,
    headers: Vec<ThreadHeader>,
    names: HashMap<Address, NameReader>,
    /// Bytes of the names of all threads, near enough.
    name_bytes: usize,
    named_at: Option<Instant>,
    changes: u64,
}

impl Threads {
    /// No threads yet.
    pub(super) fn new(process: ProcEntry) -> Self {
        Threads {
            tasks: Tasks::of(&process).unwrap_or_default(),
            process,
            known: BTreeMap::new(),
            met: 0,
            ended: Vec::new(),
            by_thread_state: HashMap::new(),
            by_descriptor: BTreeMap::new(),
            lingering: Vec::new(),
            refreshes: 0,
            pthread_tid: PthreadTid::default(),
            interpreters: Vec::new(),
            lists: Vec::new(),
            headers: Vec::new(),
            names: HashMap::new(),
            name_bytes: 0,
            named_at: None,
            changes: 0,
        }
    }

    /// All threads with their numbers, in order, also those that have only just ended. Those that ended before are
    /// forgotten: a process that makes ever new threads has millions of them in a day.
    pub fn all(&self) -> impl Iterator<Item = (ThreadIndex, &KnownThread)> {
        self.known.iter().map(|(index, known)| (*index, known))
    }

    /// The threads that were met after the first so many.
    pub fn since(&self, met_before: usize) -> impl Iterator<Item = (ThreadIndex, &KnownThread)> {
        let first = ThreadIndex(u32::try_from(met_before).unwrap_or(u32::MAX));
        self.known.range(first..).map(|(index, known)| (*index, known))
    }

    /// One of them; `None` where it ended long ago.
    pub fn get(&self, index: ThreadIndex) -> Option<&KnownThread> {
        self.known.get(&index)
    }

    /// How many were met so far; they are numbered from 0.
    pub fn met(&self) -> usize {
        self.met
    }

    /// A number that grows whenever a thread has come or gone.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Where in its descriptor a thread's kernel id is, where the interpreter does not keep it.
    pub(super) fn tid_offset(&self) -> Option<u64> {
        self.pthread_tid.offset()
    }

    /// Finds out which threads there are now, and, if it is time for that, what they are called.
    pub(super) fn refresh(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        interpreters: &[Interpreter],
    ) -> Result<(), ReadError> {
        self.interpreters.clear();
        self.interpreters.extend_from_slice(interpreters);
        self.lists.retain(|list| interpreters.iter().any(|known| known.address == list.interpreter()));
        let mut headers = std::mem::take(&mut self.headers);
        headers.clear();
        // Oldest first: a thread has come from the older interpreter into the newer one.
        for interpreter in interpreters.iter().rev() {
            let place = self.lists.iter().position(|list| list.interpreter() == interpreter.address);
            let place = place.unwrap_or_else(|| {
                self.lists.push(ThreadList::new(interpreter.address));
                self.lists.len() - 1
            });
            self.lists[place].read(memory, layout, &mut headers)?;
        }
        self.pthread_tid.learn(memory, &headers, || Tasks::of(&self.process).unwrap_or_default());
        keep_started(&mut headers);
        self.refreshes += 1;
        self.forget_ended();
        let met_before = self.met;
        let most_new = if self.refreshes == 1 { MAX_THREADS } else { MOST_NEW };
        let mut new = 0;
        for &header in &headers {
            let is_known = self.by_thread_state.contains_key(&header.address);
            new += usize::from(!is_known);
            if is_known || new <= most_new {
                self.meet(memory, header);
            }
        }
        self.headers = headers;
        self.forget_unseen();
        self.end_first();
        let has_new = self.met > met_before;
        if has_new || self.named_at.is_none_or(|at| at.elapsed() > RENAMED) {
            self.name(memory, layout);
        }
        Ok(())
    }

    /// Forgets the threads that had ended by the last refresh already: whoever looks at them after each has seen how they
    /// ended.
    fn forget_ended(&mut self) {
        for index in std::mem::take(&mut self.ended) {
            let name = self.known.remove(&index).and_then(|known| known.name);
            self.name_bytes = self.name_bytes.saturating_sub(name.map_or(0, |name| name.len()));
        }
        let ended = |known: &KnownThread| !known.is_alive && known.states.is_empty();
        self.ended.extend(self.known.iter().filter(|(_, known)| ended(known)).map(|(index, _)| *index));
    }

    /// A process's first thread may end long before the process; its thread state stays, as does its entry in /proc.
    fn end_first(&mut self) {
        let pid = self.process.pid().raw();
        let is_first = |known: &&mut KnownThread| known.is_alive && known.tid == Some(Tid::new(pid));
        if let Some(first) = self.known.values_mut().find(is_first)
            && self.process.first_has_ended()
        {
            first.is_alive = false;
            self.changes += 1;
        }
    }

    /// Forgets the thread states that the last refresh did not see.
    fn forget_unseen(&mut self) {
        let (known, now, refreshes) = (&mut self.known, Instant::now(), self.refreshes);
        let lingering = &mut self.lingering;
        self.by_thread_state.retain(|address, index| {
            let Some(thread) = known.get_mut(index) else { return false };
            let is_there =
                thread.states.iter().any(|state| state.address == *address && state.seen_at == refreshes);
            if !is_there {
                thread.remove_state(*address);
                if thread.states.is_empty() {
                    lingering.push((*index, now));
                }
            }
            is_there
        });
        let mut ended = 0;
        let (process, changes) = (&self.process, &mut self.changes);
        self.lingering.retain(|&(index, since)| {
            let Some(thread) = known.get_mut(&index) else { return false };
            if !thread.states.is_empty() || !thread.is_alive {
                return false;
            }
            let lives = || thread.tid.is_some_and(|tid| tasks::comm(process, tid).is_some());
            thread.is_alive = since.elapsed() < LINGERS && lives();
            ended += u64::from(!thread.is_alive);
            thread.is_alive
        });
        *changes += ended;
        if ended > 0 {
            self.by_descriptor.retain(|_, index| known.get(index).is_some_and(|thread| thread.is_alive));
        }
    }

    /// The thread of a thread state; one not met before is looked at first. `None` where there is no
    /// thread state of this process.
    pub(super) fn index_of(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        thread_state: Address,
    ) -> Result<Option<ThreadIndex>, ReadError> {
        match threads::read_thread(memory, layout, thread_state) {
            Ok(header) => Ok(header.and_then(|header| self.identify(memory, layout, header))),
            Err(error) if error.is_final() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// The thread that runs with a thread state; `None` where it is none of this process.
    pub(super) fn identify(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        header: ThreadHeader,
    ) -> Option<ThreadIndex> {
        if !self.interpreters.iter().any(|interpreter| interpreter.address == header.interpreter) {
            return None;
        }
        let met_before = self.met;
        let index = self.meet(memory, header)?;
        if let Some(known) = self.known.get_mut(&index) {
            known.current = header.address;
        }
        if self.met > met_before && self.named_at.is_none_or(|at| at.elapsed() > NAMES_AGE) {
            self.name(memory, layout);
        }
        Some(index)
    }

    /// The thread state that a thread runs with now, of those that it has; `None` where it has none any more.
    ///
    /// # Errors
    /// When the process is gone or refuses.
    pub(super) fn current_state(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        index: ThreadIndex,
    ) -> Result<Option<Address>, ReadError> {
        let Some(known) = self.known.get_mut(&index) else { return Ok(None) };
        if known.states.len() > 1
            && let Some(current) =
                threads::current_of(memory, layout, known.states.iter().map(|it| it.address))?
        {
            known.current = current;
        }
        Ok(known.current_state())
    }

    /// Notes in which interpreter a thread was seen.
    pub(super) fn count(&mut self, index: ThreadIndex, interpreter: i64) {
        if let Some(known) = self.known.get_mut(&index)
            && known.interpreters.len() > 1
            && let Some((_, looks)) = known.interpreters.iter_mut().find(|(id, _)| *id == interpreter)
        {
            *looks = looks.saturating_add(1);
        }
    }

    /// The number of a thread: the old one where the thread state still belongs to the same thread, or where
    /// another one of the same thread is known. `None` where it would be one too many.
    fn meet(&mut self, memory: &impl ReadMemory, header: ThreadHeader) -> Option<ThreadIndex> {
        let header = self.with_runner(header);
        let namespace_tid = header.native_tid.or_else(|| self.pthread_tid.of(memory, header.pthread));
        let index = match self.by_thread_state.get(&header.address) {
            Some(&index) if self.is_same(index, header.pthread, namespace_tid) => index,
            _ if self.met >= MOST_THREADS => return None,
            _ => self.add(&header, namespace_tid),
        };
        let refreshes = self.refreshes;
        let thread = self.known.get_mut(&index)?;
        if let Some(state) = thread.states.iter_mut().find(|state| state.address == header.address) {
            state.seen_at = refreshes;
        }
        if let (None, Some(namespace_tid)) = (thread.namespace_tid, namespace_tid) {
            self.set_tid(index, namespace_tid);
        }
        Some(index)
    }

    /// To 3.12 a subinterpreter's thread state has the id of the thread that made it, whichever runs with it
    /// (`_run_script` in CPython 3.12 `Modules/_xxsubinterpretersmodule.c`). That is the one on whose C stack it is:
    /// glibc and musl put a thread's descriptor at the upper end of its stack. Threads are met in the main interpreter
    /// first, with thread states of their own.
    fn with_runner(&self, header: ThreadHeader) -> ThreadHeader {
        let Some(c_stack) = header.c_stack else { return header };
        let Some((&pthread, index)) = self.by_descriptor.range(c_stack.raw()..).next() else { return header };
        let Some(runner) = self.known.get(index) else { return header };
        let is_own = (c_stack.raw()..=pthread).contains(&header.pthread);
        if is_own
            || pthread - c_stack.raw() > LARGEST_STACK
            || !runner.is_alive
            || runner.namespace_tid.is_none()
        {
            return header;
        }
        ThreadHeader { pthread, native_tid: runner.namespace_tid, ..header }
    }

    /// Thread states and descriptors are used again for other threads, which have other ids. A thread's id
    /// may come later than its thread state.
    fn is_same(&self, index: ThreadIndex, pthread: u64, namespace_tid: Option<NamespaceTid>) -> bool {
        let Some(known) = self.known.get(&index) else { return false };
        let same_tid = match (known.namespace_tid, namespace_tid) {
            (Some(known), Some(now)) => known == now,
            _ => true,
        };
        known.pthread == pthread && same_tid
    }

    /// Takes over a thread state that is new, or is another thread's than before.
    fn add(&mut self, header: &ThreadHeader, namespace_tid: Option<NamespaceTid>) -> ThreadIndex {
        if let Some(before) = self.by_thread_state.remove(&header.address) {
            if let Some(known) = self.known.get_mut(&before) {
                known.remove_state(header.address);
            }
            self.end_without_states(before);
        }
        let same = self.by_descriptor.get(&header.pthread).copied();
        let is_same = |index: ThreadIndex| {
            self.known.get(&index).is_some_and(|known| {
                known.is_alive && known.namespace_tid.is_some() && known.namespace_tid == namespace_tid
            })
        };
        let index = match same {
            Some(index) if is_same(index) => index,
            _ => self.add_thread(header.pthread, same),
        };
        let interpreter = self.interpreters.iter().find(|known| known.address == header.interpreter);
        let state = OwnState {
            address: header.address,
            interpreter: interpreter.map_or(0, |interpreter| interpreter.id),
            interpreter_address: header.interpreter,
            seen_at: self.refreshes,
        };
        if let Some(known) = self.known.get_mut(&index) {
            known.add_state(state);
        }
        self.by_thread_state.insert(header.address, index);
        index
    }

    /// A new thread; whoever had its descriptor before has ended.
    fn add_thread(&mut self, pthread: u64, before: Option<ThreadIndex>) -> ThreadIndex {
        if let Some(before) = before {
            let states = self.known.get_mut(&before).map(|known| std::mem::take(&mut known.states));
            for state in states.unwrap_or_default() {
                self.by_thread_state.remove(&state.address);
            }
            self.end_without_states(before);
        }
        let index = ThreadIndex(self.met as u32);
        self.met += 1;
        self.changes += 1;
        self.by_descriptor.insert(pthread, index);
        let thread = KnownThread {
            states: SmallVec::new(),
            current: Address::NULL,
            interpreters: SmallVec::new(),
            tid: None,
            namespace_tid: None,
            name: None,
            is_alive: true,
            pthread,
        };
        self.known.insert(index, thread);
        index
    }

    fn end_without_states(&mut self, index: ThreadIndex) {
        if let Some(thread) = self.known.get_mut(&index)
            && thread.is_alive
            && thread.states.is_empty()
        {
            thread.is_alive = false;
            self.changes += 1;
        }
    }

    /// Takes over a thread's id, if the kernel has a thread of that id: a thread state may outlive its thread.
    fn set_tid(&mut self, index: ThreadIndex, namespace_tid: NamespaceTid) {
        let mut tid = self.host_tid(namespace_tid);
        let mut comm = tid.and_then(|tid| tasks::comm(&self.process, tid));
        if comm.is_none() && self.met == 1 && tasks::tids(&self.process).len() == 1 {
            // A child that C code forked: its thread state has the id of the thread that did.
            tid = Some(Tid::new(self.process.pid().raw()));
            comm = tid.and_then(|tid| tasks::comm(&self.process, tid));
        }
        let Some(thread) = self.known.get_mut(&index) else { return };
        if tid.is_some() && comm.is_none() {
            thread.is_alive = false;
            self.changes += 1;
        }
        (thread.namespace_tid, thread.tid) = (Some(namespace_tid), tid.filter(|_| comm.is_some()));
        thread.name = thread.name.take().or(comm);
    }

    /// In another PID namespace an id may have been given again, to a thread with another id here.
    fn host_tid(&mut self, namespace_tid: NamespaceTid) -> Option<Tid> {
        if !self.tasks.is_same_namespace() {
            self.tasks = Tasks::of(&self.process).unwrap_or_default();
        }
        self.tasks.tid(namespace_tid)
    }

    /// Takes over the names that Python has for its threads; where it has none, the kernel's stay. Where several
    /// interpreters name a thread, the oldest one's counts: the others call it their main thread.
    fn name(&mut self, memory: &impl ReadMemory, layout: &Layout) {
        self.named_at = Some(Instant::now());
        self.names.retain(|address, _| self.interpreters.iter().any(|known| known.address == *address));
        let mut names = HashMap::<Address, (usize, Names)>::new();
        for (place, interpreter) in self.interpreters.iter().enumerate() {
            let reader =
                self.names.entry(interpreter.address).or_insert_with(|| NameReader::new(interpreter.address));
            if let Ok(read) = reader.read(memory, layout) {
                names.insert(interpreter.address, (place, read));
            }
        }
        for index in self.by_thread_state.values() {
            let Some(thread) = self.known.get_mut(index) else { continue };
            let known = thread.states.iter().filter_map(|state| names.get(&state.interpreter_address));
            let named = known.filter_map(|(place, names)| Some((place, names.get(&thread.pthread)?)));
            let Some((_, name)) = named.max_by_key(|(place, _)| **place) else { continue };
            let before = thread.name.as_ref().map_or(0, String::len);
            let bytes = self.name_bytes.saturating_sub(before).saturating_add(name.len());
            if bytes <= MOST_NAMES {
                self.name_bytes = bytes;
                thread.name = Some(name.clone());
            }
        }
    }
}

/// Keeps those that have a thread: a thread state is made before its thread starts, and has no `pthread_t`
/// until then (3.11 on), or its maker's (to 3.10, `new_threadstate` in CPython `Python/pystate.c`).
fn keep_started(headers: &mut Vec<ThreadHeader>) {
    let mut makers = HashMap::<u64, usize>::new();
    for header in headers.iter() {
        *makers.entry(header.pthread).or_default() += 1;
    }
    headers.retain(|header| {
        header.pthread != 0 && (makers[&header.pthread] == 1 || !header.frame_pointer.is_null())
    });
}
