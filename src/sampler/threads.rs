//! The threads met so far: which thread state belongs to which, what the kernel and Python call them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::cpython::layout::Layout;
use crate::cpython::names::NameReader;
use crate::cpython::threads::{self, Interpreter, PthreadTid, ThreadHeader, ThreadList};
use crate::sample::ThreadIndex;
use crate::target::memory::{ReadError, ReadMemory};
use crate::target::tasks::{self, Tasks};
use crate::units::{Address, NamespaceTid, Pid, Tid};

/// How soon after one look for names another is worth its cost, when a new thread turns up.
const NAMES_AGE: Duration = Duration::from_millis(5);

/// How often to look whether threads have been renamed.
const RENAMED: Duration = Duration::from_secs(1);

/// A thread of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownThread {
    /// Its thread state.
    pub thread_state: Address,
    /// Its interpreter's number.
    pub interpreter: i64,
    /// Its id as gilspy's namespace counts; `None` where it could not be found.
    pub tid: Option<Tid>,
    /// Its id as the target's namespace counts.
    pub namespace_tid: Option<NamespaceTid>,
    /// Its name in Python, else the kernel's.
    pub name: Option<String>,
    /// Whether it was there at the last look.
    pub is_alive: bool,
    pthread: u64,
    interpreter_address: Address,
}

/// The threads of one process.
#[derive(Debug)]
pub struct Threads {
    pid: Pid,
    known: Vec<KnownThread>,
    by_thread_state: HashMap<Address, ThreadIndex>,
    tasks: Tasks,
    pthread_tid: PthreadTid,
    interpreters: Vec<Interpreter>,
    lists: Vec<ThreadList>,
    headers: Vec<ThreadHeader>,
    names: HashMap<Address, NameReader>,
    named_at: Option<Instant>,
    changes: u64,
}

impl Threads {
    /// No threads yet.
    pub(super) fn new(pid: Pid) -> Self {
        Threads {
            pid,
            known: Vec::new(),
            by_thread_state: HashMap::new(),
            tasks: Tasks::of(pid).unwrap_or_default(),
            pthread_tid: PthreadTid::default(),
            interpreters: Vec::new(),
            lists: Vec::new(),
            headers: Vec::new(),
            names: HashMap::new(),
            named_at: None,
            changes: 0,
        }
    }

    /// All threads, also those that have ended; a [`ThreadIndex`] is a place in this list.
    pub fn all(&self) -> &[KnownThread] {
        &self.known
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
        for interpreter in interpreters {
            let place = self.lists.iter().position(|list| list.interpreter() == interpreter.address);
            let place = place.unwrap_or_else(|| {
                self.lists.push(ThreadList::new(interpreter.address));
                self.lists.len() - 1
            });
            self.lists[place].read(memory, layout, &mut headers)?;
        }
        self.pthread_tid.learn(memory, &headers, || Tasks::of(self.pid).unwrap_or_default());
        for index in self.by_thread_state.values() {
            self.known[index.0 as usize].is_alive = false;
        }
        keep_started(&mut headers);
        let met_before = self.known.len();
        for &header in &headers {
            let index = self.meet(memory, header);
            self.known[index.0 as usize].is_alive = true;
        }
        self.headers = headers;
        let (known, count) = (&self.known, self.by_thread_state.len());
        self.by_thread_state.retain(|_, index| known[index.0 as usize].is_alive);
        self.changes += u64::from(self.by_thread_state.len() < count);
        let has_new = self.known.len() > met_before;
        if has_new || self.named_at.is_none_or(|at| at.elapsed() > RENAMED) {
            self.name(memory, layout);
        }
        Ok(())
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
            Err(error @ (ReadError::Gone | ReadError::Denied)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// The thread that a thread state belongs to; `None` where it is none of this process.
    pub(super) fn identify(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        header: ThreadHeader,
    ) -> Option<ThreadIndex> {
        if !self.interpreters.iter().any(|interpreter| interpreter.address == header.interpreter) {
            return None;
        }
        let met_before = self.known.len();
        let index = self.meet(memory, header);
        if self.known.len() > met_before && self.named_at.is_none_or(|at| at.elapsed() > NAMES_AGE) {
            self.name(memory, layout);
        }
        Some(index)
    }

    /// The number of a thread: the old one where the thread state still belongs to the same thread.
    fn meet(&mut self, memory: &impl ReadMemory, header: ThreadHeader) -> ThreadIndex {
        let namespace_tid = header.native_tid.or_else(|| self.pthread_tid.of(memory, header.pthread));
        let index = match self.by_thread_state.get(&header.address) {
            Some(&index) if self.is_same(index, header.pthread, namespace_tid) => index,
            _ => self.add(&header),
        };
        let thread = &self.known[index.0 as usize];
        if let (None, Some(namespace_tid)) = (thread.namespace_tid, namespace_tid) {
            self.set_tid(index, namespace_tid);
        }
        index
    }

    /// Thread states and descriptors are used again for other threads, which have other ids. A thread's id
    /// may come later than its thread state.
    fn is_same(&self, index: ThreadIndex, pthread: u64, namespace_tid: Option<NamespaceTid>) -> bool {
        let known = &self.known[index.0 as usize];
        let same_tid = match (known.namespace_tid, namespace_tid) {
            (Some(known), Some(now)) => known == now,
            _ => true,
        };
        known.pthread == pthread && same_tid
    }

    fn add(&mut self, header: &ThreadHeader) -> ThreadIndex {
        let interpreter = self.interpreters.iter().find(|known| known.address == header.interpreter);
        let interpreter = interpreter.map_or(0, |interpreter| interpreter.id);
        let index = ThreadIndex(self.known.len() as u32);
        self.end_predecessors(header);
        self.changes += 1;
        self.known.push(KnownThread {
            thread_state: header.address,
            interpreter,
            tid: None,
            namespace_tid: None,
            name: None,
            is_alive: true,
            pthread: header.pthread,
            interpreter_address: header.interpreter,
        });
        self.by_thread_state.insert(header.address, index);
        index
    }

    /// Whoever had this descriptor or thread state before has ended.
    fn end_predecessors(&mut self, header: &ThreadHeader) {
        let known = &mut self.known;
        self.by_thread_state.retain(|thread_state, index| {
            let thread = &mut known[index.0 as usize];
            let is_predecessor = *thread_state == header.address
                || (thread.pthread == header.pthread && thread.interpreter_address == header.interpreter);
            thread.is_alive = thread.is_alive && !is_predecessor;
            !is_predecessor
        });
    }

    /// Takes over a thread's id, if the kernel has a thread of that id: a thread state may outlive its thread.
    fn set_tid(&mut self, index: ThreadIndex, namespace_tid: NamespaceTid) {
        let tid = self.host_tid(namespace_tid);
        let comm = tid.and_then(|tid| tasks::comm(self.pid, tid));
        let thread = &mut self.known[index.0 as usize];
        (thread.namespace_tid, thread.tid) = (Some(namespace_tid), tid.filter(|_| comm.is_some()));
        thread.name = thread.name.take().or(comm);
    }

    /// In another PID namespace an id may have been given again, to a thread with another id here.
    fn host_tid(&mut self, namespace_tid: NamespaceTid) -> Option<Tid> {
        if !self.tasks.is_same_namespace() {
            self.tasks = Tasks::of(self.pid).unwrap_or_default();
        }
        self.tasks.tid(namespace_tid)
    }

    /// Takes over the names that Python has for its threads; where it has none, the kernel's stay.
    fn name(&mut self, memory: &impl ReadMemory, layout: &Layout) {
        self.named_at = Some(Instant::now());
        self.names.retain(|address, _| self.interpreters.iter().any(|known| known.address == *address));
        for interpreter in &self.interpreters {
            let reader =
                self.names.entry(interpreter.address).or_insert_with(|| NameReader::new(interpreter.address));
            let Ok(names) = reader.read(memory, layout) else { continue };
            for index in self.by_thread_state.values() {
                let thread = &mut self.known[index.0 as usize];
                if thread.interpreter_address == interpreter.address
                    && let Some(name) = names.get(&thread.pthread)
                {
                    thread.name = Some(name.clone());
                }
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
