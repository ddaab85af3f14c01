//! The names that Python's `threading` module gives its threads.
//!
//! They are where the module keeps them: `sys.modules['threading']._active` is a dict from
//! `threading.get_ident()` to `Thread`, whose attribute `_name` is the name (CPython 3.7 to 3.15
//! `Lib/threading.py`). The target goes on meanwhile, so everything a name was read through is read
//! again; what has changed is tried once more, and left out if it never stands still.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::batch::Pieces;
use super::decode::{u32_at, u64_at};
use super::dict::{Dict, Keys, KnownKey, MAX_ENTRIES, read_dicts, read_keys};
use super::instance::attribute_slots;
use super::layout::{IntLayout, Layout};
use super::objects::{ObjectError, StrBehind, read_strs_behind};
use crate::target::memory::{ReadError, ReadMemory};
use crate::units::Address;

/// How often names that changed while they were read are tried.
const ATTEMPTS: usize = 3;

/// How many threads are read together: what bounds the memory it takes.
const THREADS_A_STEP: usize = 512;

/// Names by `threading.get_ident()`, the `pthread_t` of a thread.
pub type Names = HashMap<u64, String>;

/// The names of an interpreter's threads, read once. To read them again and again, keep a [`NameReader`].
///
/// # Errors
/// As [`NameReader::read`].
pub fn thread_names(
    memory: &impl ReadMemory,
    layout: &Layout,
    interpreter: Address,
) -> Result<Names, ObjectError> {
    NameReader::new(interpreter).read(memory, layout)
}

/// Reads the names of one interpreter's threads, and remembers what makes reading them again cheap.
#[derive(Debug, Clone)]
pub struct NameReader {
    interpreter: Address,
    module: KnownKey,
    active: KnownKey,
    name: KnownKey,
    /// A hash of `sys.modules` as it was when it was searched for `threading` in vain.
    searched: Option<u64>,
}

impl NameReader {
    /// A reader for the interpreter at this address.
    pub fn new(interpreter: Address) -> Self {
        NameReader {
            interpreter,
            module: KnownKey::new("threading"),
            active: KnownKey::new("_active"),
            name: KnownKey::new("_name"),
            searched: None,
        }
    }

    /// The names as they are now; none if `threading` is not imported. A thread whose name cannot be read,
    /// or which `threading` has not met yet, is left out.
    ///
    /// # Errors
    /// When memory could not be read, or the modules are not where they should be.
    pub fn read(&mut self, memory: &impl ReadMemory, layout: &Layout) -> Result<Names, ObjectError> {
        let known = &mut [&mut self.module, &mut self.active, &mut self.name];
        KnownKey::confirm(memory, layout, known)?;
        let mut names = Names::new();
        for _ in 0..ATTEMPTS {
            let Some(active) = self.active_threads(memory, layout)? else {
                return Ok(Names::new());
            };
            let all_settled = self.read_active(memory, layout, active, &mut names)?;
            if all_settled {
                break;
            }
        }
        Ok(names)
    }

    /// Where the dict `threading._active` is.
    fn active_threads(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
    ) -> Result<Option<Address>, ObjectError> {
        let modules = memory.read_pointer(self.interpreter + layout.interpreter.modules)?;
        if modules.is_null() {
            return Ok(None);
        }
        let (dict, keys) = read_dict(memory, layout, modules)?;
        let hash = FixedState::default().hash_one(&keys);
        if self.searched == Some(hash) {
            return Ok(None);
        }
        let Some(module) = read_item(memory, layout, (&dict, &keys), &mut self.module)? else {
            self.searched = Some(hash);
            return Ok(None);
        };
        let attributes = memory.read_pointer(module + layout.objects.module_dict)?;
        let (dict, keys) = read_dict(memory, layout, attributes)?;
        Ok(read_item(memory, layout, (&dict, &keys), &mut self.active)?)
    }

    /// Reads all names that `active` leads to into `names`, and answers whether none changed meanwhile.
    fn read_active(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        active: Address,
        names: &mut Names,
    ) -> Result<bool, ObjectError> {
        let (dict, keys) = read_dict(memory, layout, active)?;
        let mut read = Vec::new();
        for entries in keys.entries.chunks(THREADS_A_STEP) {
            read.extend(self.read_names(memory, layout, entries)?);
        }
        // Only what is still in the dict was in it all the while, hence alive.
        let unchanged = read_dict(memory, layout, active).ok().filter(|(dict_now, _)| *dict_now == dict);
        let entries_now = unchanged.map(|(_, keys)| keys.entries).unwrap_or_default();
        let mut all_settled = true;
        names.clear();
        for (index, name) in read.into_iter().enumerate() {
            match name {
                NameRead::Stable(ident, name) if entries_now.get(index) == keys.entries.get(index) => {
                    names.insert(ident, name);
                }
                NameRead::Absent => {}
                _ => all_settled = false,
            }
        }
        Ok(all_settled)
    }

    /// The identity and name of the threads in some entries of `threading._active`.
    fn read_names(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        entries: &[(Address, Address)],
    ) -> Result<Vec<NameRead>, ReadError> {
        let (idents, threads): (Vec<_>, Vec<_>) = entries.iter().copied().unzip();
        let idents = read_ints(memory, &layout.objects.int, &idents)?;
        let slots = attribute_slots(memory, layout, &threads, &mut self.name)?;
        let slots: Vec<_> = slots.into_iter().map(Option::unwrap_or_default).collect();
        let names = read_strs_behind(memory, &layout.unicode, &slots)?;
        Ok((idents.into_iter().zip(names))
            .map(|(ident, name)| match (ident, name) {
                (Some(ident), StrBehind::Text(name)) => NameRead::Stable(ident, name),
                (Some(_), StrBehind::Changed) => NameRead::Changed,
                _ => NameRead::Absent,
            })
            .collect())
    }
}

/// What came of one entry of `threading._active`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NameRead {
    /// A thread's identity and its name, which was the same before and after.
    Stable(u64, String),
    /// It was renamed meanwhile.
    Changed,
    /// There is no such thread, or no name that can be read.
    Absent,
}

/// The dict at `address` with its keys.
fn read_dict(
    memory: &impl ReadMemory,
    layout: &Layout,
    address: Address,
) -> Result<(Dict, Keys), ObjectError> {
    let implausible = ObjectError::Implausible(address);
    let [Some(dict)] = read_dicts(memory, layout, &[address])?[..] else {
        return Err(implausible);
    };
    let keys = read_keys(memory, layout, &[dict.keys], MAX_ENTRIES)?.pop();
    Ok((dict, keys.flatten().ok_or(implausible)?))
}

/// The value that a dict has for a key.
fn read_item(
    memory: &impl ReadMemory,
    layout: &Layout,
    (dict, keys): (&Dict, &Keys),
    key: &mut KnownKey,
) -> Result<Option<Address>, ReadError> {
    let Some(index) = key.find(memory, layout, keys)? else {
        return Ok(None);
    };
    let value = memory.read_pointer(dict.value_slot(keys, index))?;
    Ok((!value.is_null()).then_some(value))
}

/// The `int` objects at these addresses; `None` where one is not a positive 64-bit number.
fn read_ints(
    memory: &impl ReadMemory,
    layout: &IntLayout,
    addresses: &[Address],
) -> Result<Vec<Option<u64>>, ReadError> {
    // The third digit of an int that has only two may lie beyond what is mapped.
    let mut ints = vec![None; addresses.len()];
    for digits in [2, 3] {
        let missing = (ints.iter().zip(addresses))
            .map(|(int, &address)| if int.is_none() { address } else { Address::NULL });
        let pieces = Pieces::read_equal(memory, missing, layout.digits + digits * 4)?;
        for (int, bytes) in ints.iter_mut().zip(pieces.iter()) {
            *int = int.or_else(|| decode_int(bytes?, layout));
        }
    }
    Ok(ints)
}

/// The value of a positive `int`, if all its digits are among the bytes.
fn decode_int(bytes: &[u8], layout: &IntLayout) -> Option<u64> {
    let size = u64_at(bytes, layout.size)?;
    if size & layout.sign_mask != 0 {
        return None;
    }
    let count = size >> layout.size_shift;
    if count > 3 {
        return None;
    }
    (0..count).rev().try_fold(0u64, |value, index| {
        let digit = u64::from(u32_at(bytes, layout.digits + index * 4)?);
        let fits = digit < 1 << DIGIT_BITS && value >> (64 - DIGIT_BITS) == 0;
        fits.then_some(value << DIGIT_BITS | digit)
    })
}

/// `PyLong_SHIFT` of 64-bit builds (CPython `Include/cpython/longintrepr.h`).
const DIGIT_BITS: u32 = 30;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cpython::layout::{ManagedDict, table};
    use crate::cpython::version::Version;
    use crate::target::memory::Segment;

    const TO_3_11: IntLayout = IntLayout { size: 16, size_shift: 0, sign_mask: 0, digits: 24 };
    const FROM_3_12: IntLayout = IntLayout { size: 16, size_shift: 3, sign_mask: 3, digits: 24 };

    fn int(size: u64, digits: &[u32]) -> Vec<u8> {
        let header = [1, 0xdead, size].map(u64::to_le_bytes).concat();
        header.into_iter().chain(digits.iter().flat_map(|digit| digit.to_le_bytes())).collect()
    }

    #[test]
    fn ints_have_digits_of_30_bits() {
        let ident: u64 = 0x7f12_3456_7700;
        let digits = [(ident & 0x3fff_ffff) as u32, (ident >> 30) as u32];
        assert_eq!(decode_int(&int(2, &digits), &TO_3_11), Some(ident));
        assert_eq!(decode_int(&int(2 << 3, &digits), &FROM_3_12), Some(ident));
        // From 3.14 on a bit says that an int is immortal (Include/internal/pycore_long.h).
        assert_eq!(decode_int(&int(1 << 3 | 4, &[7, 0]), &FROM_3_12), Some(7));
        let greatest = int(3, &[0x3fff_ffff, 0x3fff_ffff, 0xf]);
        assert_eq!(decode_int(&greatest, &TO_3_11), Some(u64::MAX));
    }

    #[test]
    fn ints_that_are_no_idents_are_refused() {
        assert_eq!(decode_int(&int(-1i64 as u64, &[7, 0]), &TO_3_11), None);
        assert_eq!(decode_int(&int(1 << 3 | 2, &[7, 0]), &FROM_3_12), None);
        assert_eq!(decode_int(&int(3, &[0, 0, 0x10]), &TO_3_11), None);
        assert_eq!(decode_int(&int(4, &[1, 1, 1, 1]), &TO_3_11), None);
        assert_eq!(decode_int(&int(1, &[1 << 30, 0]), &TO_3_11), None);
        assert_eq!(decode_int(&int(3, &[1, 1]), &TO_3_11), None, "one digit is not there");
    }

    /// A few kilobytes that mostly point into themselves; nothing is mapped around them.
    struct Maze(Vec<u8>);

    const MAZE: u64 = 0x1000;

    impl ReadMemory for Maze {
        fn read_batch(&self, segments: &mut [Segment<'_>]) -> Result<(), ReadError> {
            for segment in segments {
                let start = segment.address.raw().wrapping_sub(MAZE) as usize;
                let end = start.checked_add(segment.buffer.len());
                let Some(bytes) = end.and_then(|end| self.0.get(start..end)) else { continue };
                segment.buffer.copy_from_slice(bytes);
                segment.arrived = true;
            }
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn whatever_the_memory_holds_reading_it_ends_without_harm(
            words in prop::collection::vec(
                prop_oneof![
                    5 => (0..512u64).prop_map(|word| MAZE + word * 8),
                    2 => 0..64u64,
                    1 => Just(0x0001_0303_0000_0000),
                    1 => any::<u64>(),
                ],
                512..1024,
            ),
            minor in 7..=13u64,
        ) {
            let version = Version { major: 3, minor: minor.min(12), patch: 0, pre_release: String::new() };
            let mut layout = table(&version).unwrap();
            if minor == 13 {
                layout.objects.managed_dict = ManagedDict::Inline { dict_before: 24, valid: 3 };
                layout.objects.dict.first_value = 8;
            }
            layout.interpreter.modules = 0;
            let memory = Maze(words.iter().flat_map(|word| word.to_le_bytes()).collect());
            let mut reader = NameReader::new(Address::new(MAZE));
            for key in [&mut reader.module, &mut reader.active, &mut reader.name] {
                key.pretend_known(Address::new(words[0]));
            }
            for _ in 0..2 {
                if let Some(active) = reader.active_threads(&memory, &layout).ok().flatten() {
                    let _ = reader.read_active(&memory, &layout, active, &mut Names::new());
                }
                let _ = reader.read(&memory, &layout);
            }
        }
    }
}
