//! From stacks as addresses to stacks as names, each named once: a stack whose code objects are settled is
//! known by its addresses from then on.

use super::bounds::LINE_TABLES;
use crate::cpython::code::{CodeCache, Verified, Witness};
use crate::cpython::frames::{RawFrame, StackReader};
use crate::cpython::layout::Layout;
use crate::sample::{StackIndex, StackTable};
use crate::target::memory::{ReadError, ReadMemory};
use crate::units::Address;

type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// Stacks known by their addresses at most; beyond it they are named anew.
const MAX_KNOWN: usize = 65_536;

/// Frames of them together at most: 32 MiB.
const MAX_KNOWN_FRAMES: usize = 1 << 21;

/// Uses after which the trusted code objects are looked at early, before the next tick.
const MAX_USES: usize = 1 << 16;

/// How many code objects that are not settled are looked at between two readings of the stack. Few, so that the
/// readings are close: a program that makes and drops functions every 10 us may else be at one when the stack
/// is read and at another when the code is, as often as they are looked at.
const WITNESSES: usize = 2;

/// In how many groups at most: a stack of very many is read no more often than that.
const GROUPS: usize = 16;

/// How often each of them is.
const ROUNDS: usize = 2;

/// Readings that are made for that at most, if the stack moves too fast for one to say anything.
const ATTEMPTS: usize = 3;

/// Names stacks.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    codes: CodeCache,
    table: StackTable,
    known: HashMap<Box<[RawFrame]>, Known>,
    /// Frames of all of them, those that were dropped since they last started anew included.
    known_frames: usize,
    /// Code objects that were trusted since the last confirmation, and what for.
    uses: Vec<(Address, StackIndex)>,
    doubtful: Vec<StackIndex>,
    confirmations: u32,
}

/// A stack whose name is known.
#[derive(Debug)]
struct Known {
    index: StackIndex,
    /// The confirmation after which it was last noted as used.
    noted: u32,
}

impl Stacks {
    /// Every stack named so far.
    pub(super) fn table(&self) -> &StackTable {
        &self.table
    }

    /// What is named from now on may take so much computing.
    pub(super) fn begin_tick(&mut self) {
        self.codes.allow_lines(LINE_TABLES);
    }

    /// The same, when there is nothing more to name.
    pub(super) fn into_table(self) -> StackTable {
        self.table
    }

    /// The place in the table of a stack that `reader` has read.
    ///
    /// A code object that is not settled may have been replaced since the stack was read: its name counts only
    /// if its frame is still there after the name was read, and again.
    ///
    /// # Errors
    /// When the target is gone or refuses.
    pub(super) fn name(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        stack: &[RawFrame],
        reader: &mut StackReader,
    ) -> Result<StackIndex, ReadError> {
        if self.has_to_confirm() {
            return Ok(StackIndex::UNKNOWN);
        }
        if self.codes.is_full() {
            self.codes = CodeCache::default();
            self.forget_known();
        }
        if let Some(known) = self.known.get_mut(stack) {
            let index = known.index;
            if known.noted != self.confirmations {
                known.noted = self.confirmations;
                self.note(stack, index);
            }
            return Ok(index);
        }
        let (all_settled, sure) = self.verify(memory, layout, stack, reader)?;
        let frames = stack.iter().enumerate().filter_map(|(place, raw)| {
            let is_sure = stack.len() - place <= sure || self.codes.is_settled(raw.code);
            self.codes.name_frame(layout, if is_sure { raw } else { &RawFrame::UNREAD })
        });
        let index = self.table.intern(frames);
        self.note(stack, index);
        if all_settled && self.codes.has_all_lines() {
            self.known_frames += stack.len();
            if self.known.len() == MAX_KNOWN || self.known_frames > MAX_KNOWN_FRAMES {
                self.forget_known();
                self.known_frames = stack.len();
            }
            self.known.insert(stack.into(), Known { index, noted: self.confirmations });
        }
        Ok(index)
    }

    fn forget_known(&mut self) {
        self.known = HashMap::default();
        self.known_frames = 0;
    }

    /// Whether so much is trusted that it has to be looked at before more is.
    pub(super) fn has_to_confirm(&self) -> bool {
        self.uses.len() > MAX_USES
    }

    /// Makes sure of the code objects that are not settled. Answers whether all are, and how many of the calls,
    /// from the outermost inward, had the code objects that are known now.
    fn verify(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        stack: &[RawFrame],
        reader: &mut StackReader,
    ) -> Result<(bool, usize), ReadError> {
        if self.codes.verify(memory, layout, stack)? == Verified::Settled {
            return Ok((true, stack.len()));
        }
        let mut witnesses = self.codes.witnesses(stack);
        let known = |raw: &RawFrame| {
            let is_witnessed = || witnesses.binary_search_by_key(&raw.code, Witness::code).is_ok();
            self.codes.is_settled(raw.code) || is_witnessed()
        };
        let mut sure = stack.iter().rev().take_while(|raw| known(raw)).count();
        let size = witnesses.len().div_ceil(GROUPS).max(WITNESSES);
        for group in witnesses.chunks_mut(size) {
            for _ in 0..ROUNDS {
                let mut there = 0;
                for _attempt in 0..ATTEMPTS {
                    there = reader.still_there(memory, layout, stack, group)?;
                    if there > 0 {
                        break;
                    }
                }
                sure = sure.min(there);
                let is_other = |raw: &RawFrame| {
                    let witness = group.binary_search_by_key(&raw.code, Witness::code);
                    witness.is_ok_and(|place| !group[place].agrees(layout))
                };
                sure = stack.iter().rev().take(sure).take_while(|raw| !is_other(raw)).count();
            }
        }
        Ok((false, sure))
    }

    fn note(&mut self, stack: &[RawFrame], index: StackIndex) {
        let settled = stack.iter().map(|raw| raw.code).filter(|code| self.codes.is_settled(*code));
        self.uses.extend(settled.map(|code| (code, index)));
    }

    /// Looks again at what was trusted since the last time. Answers the stacks that are in doubt because one
    /// of their code objects is no longer what it was.
    ///
    /// # Errors
    /// When the target is gone or refuses.
    pub(super) fn confirm(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
    ) -> Result<Vec<StackIndex>, ReadError> {
        self.look_again(memory, layout)?;
        self.doubtful.sort_unstable();
        self.doubtful.dedup();
        Ok(std::mem::take(&mut self.doubtful))
    }

    /// Makes sure of what was trusted since the last time.
    ///
    /// # Errors
    /// When the target is gone or refuses.
    pub(super) fn look_again(&mut self, memory: &impl ReadMemory, layout: &Layout) -> Result<(), ReadError> {
        self.confirmations = self.confirmations.wrapping_add(1);
        let mut codes: Vec<Address> = self.uses.iter().map(|(code, _)| *code).collect();
        let confirmed = self.codes.confirm(memory, layout, &mut codes)?;
        if !confirmed.changed.is_empty() {
            let has_changed = |code: &Address| confirmed.changed.binary_search(code).is_ok();
            let doubtful = self.uses.iter().filter(|(code, _)| has_changed(code));
            self.doubtful.extend(doubtful.map(|(_, index)| *index));
        }
        if confirmed.came_loose {
            self.known.retain(|stack, _| stack.iter().all(|raw| self.codes.is_settled(raw.code)));
        }
        self.uses.clear();
        Ok(())
    }
}
