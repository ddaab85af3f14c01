//! Dicts of the target, as tables of pointers: where their entries are and which key is which.
//!
//! A dict is a pointer to its keys and, if it is split, one to its values; the keys are a header, a table
//! of indices and the entries in order of insertion (CPython `Objects/dictobject.c`). Hashes are of no use
//! from outside, so a key is looked for among all entries.

use super::batch::Pieces;
use super::decode::{pointer_at, u8_at, u64_at};
use super::layout::{DictKeysLayout, IndexTable, Layout};
use super::objects::str_equals;
use crate::target::memory::{ReadError, ReadMemory};
use crate::units::Address;

/// The most entries of a dict that are looked at.
pub(super) const MAX_ENTRIES: u64 = 65_536;

/// A longer table of indices belongs to a dict with more than 2^32 entries.
const MAX_INDEX_BYTES: u64 = 1 << 36;

/// How many keys are compared at a time: one system call.
const KEYS_A_STEP: usize = 64;

/// Where a dict keeps its keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dict {
    /// Its `PyDictKeysObject`.
    pub keys: Address,
    /// The first of its values if they are not among the keys.
    pub values: Option<Address>,
}

impl Dict {
    /// Where the pointer to the value of entry `index` is.
    pub(super) fn value_slot(&self, keys: &Keys, index: usize) -> Address {
        match self.values {
            Some(values) => values + index as u64 * 8,
            None => keys.first_value + index as u64 * keys.entry_size,
        }
    }
}

/// The dicts at these addresses; `None` where one could not be read.
///
/// # Errors
/// When nothing can be read at all.
pub(super) fn read_dicts(
    memory: &impl ReadMemory,
    layout: &Layout,
    addresses: &[Address],
) -> Result<Vec<Option<Dict>>, ReadError> {
    let layout = &layout.objects.dict;
    let pieces = Pieces::read_equal(memory, addresses.iter().copied(), layout.extent())?;
    let decode = |bytes: &[u8]| {
        let values = pointer_at(bytes, layout.values)?;
        Some(Dict {
            keys: pointer_at(bytes, layout.keys)?,
            values: (!values.is_null()).then_some(values + layout.first_value),
        })
    };
    Ok(pieces.iter().map(|bytes| bytes.and_then(decode)).collect())
}

/// The entries of a `PyDictKeysObject`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Keys {
    /// Where the pointer to the first entry's value is, of a dict that is not split.
    first_value: Address,
    entry_size: u64,
    /// Key and value of each entry; null where it was deleted, the value also if the dict is split.
    pub entries: Vec<(Address, Address)>,
}

/// What a `PyDictKeysObject` says of its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    /// How far from the start of the keys the entries are.
    entries: u64,
    entry_size: u64,
    /// Where in an entry the pointer to the key is; the one to the value follows.
    key: u64,
    count: u64,
}

impl Header {
    /// `None` where the bytes cannot be a header.
    fn decode(bytes: &[u8], layout: &DictKeysLayout) -> Option<Self> {
        let (index_bytes, with_hash) = match layout.index_table {
            IndexTable::Size(offset) => (index_bytes(u64_at(bytes, offset)?)?, true),
            IndexTable::Logarithm { log2_bytes, kind } => {
                (1u64.checked_shl(u8_at(bytes, log2_bytes)?.into())?, u8_at(bytes, kind)? == 0)
            }
        };
        let count = u64_at(bytes, layout.used_entries)?;
        // There is at least one byte of index for each entry.
        if count > index_bytes || index_bytes > MAX_INDEX_BYTES {
            return None;
        }
        // PyDictKeyEntry is hash, key, value; PyDictUnicodeEntry has no hash (3.11
        // Include/internal/pycore_dict.h; up to 3.10 all are of the first kind, Objects/dict-common.h).
        let key = if with_hash { 8 } else { 0 };
        Some(Header { entries: layout.indices + index_bytes, entry_size: key + 16, key, count })
    }
}

/// How long a table of `size` indices is (3.7 to 3.10 `Objects/dictobject.c`, `DK_IXSIZE`).
fn index_bytes(size: u64) -> Option<u64> {
    let width = match size {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => return None,
    };
    Some(size * width)
}

/// The entries of the keys at these addresses, at most `limit` of each; `None` where they make no sense.
///
/// # Errors
/// When nothing can be read at all.
pub(super) fn read_keys(
    memory: &impl ReadMemory,
    layout: &Layout,
    addresses: &[Address],
    limit: u64,
) -> Result<Vec<Option<Keys>>, ReadError> {
    let layout = &layout.objects.dict_keys;
    let pieces = Pieces::read_equal(memory, addresses.iter().copied(), layout.indices)?;
    let headers: Vec<_> =
        pieces.iter().map(|bytes| bytes.and_then(|bytes| Header::decode(bytes, layout))).collect();
    let wanted: Vec<_> = headers
        .iter()
        .zip(addresses)
        .filter_map(|(header, &address)| {
            let header = (*header)?;
            let length = header.count.min(limit) * header.entry_size;
            Some((address + header.entries, length as usize))
        })
        .collect();
    let pieces = Pieces::read(memory, &wanted)?;
    let mut entries = pieces.iter();
    Ok(headers
        .iter()
        .zip(addresses)
        .map(|(header, &address)| {
            let header = (*header)?;
            decode_entries(entries.next()??, &header, address)
        })
        .collect())
}

fn decode_entries(bytes: &[u8], header: &Header, keys: Address) -> Option<Keys> {
    let entries = bytes
        .chunks_exact(header.entry_size as usize)
        .map(|entry| Some((pointer_at(entry, header.key)?, pointer_at(entry, header.key + 8)?)))
        .collect::<Option<_>>()?;
    Some(Keys { first_value: keys + header.entries + header.key + 8, entry_size: header.entry_size, entries })
}

/// A key that is looked for again and again.
///
/// Names in programs are interned, so all dicts that hold one hold the same `str`: once its address is
/// known, finding it takes no further reads. [`confirm`](Self::confirm) it before each use.
#[derive(Debug, Clone)]
pub(super) struct KnownKey {
    text: &'static str,
    address: Address,
    /// How many keys may still be compared by their text.
    comparisons_left: u64,
}

impl KnownKey {
    /// A key of which only the text is known yet.
    pub(super) const fn new(text: &'static str) -> Self {
        KnownKey { text, address: Address::NULL, comparisons_left: 0 }
    }

    /// A key that is taken to be at `address`, whatever is there.
    #[cfg(test)]
    pub(super) fn pretend_known(&mut self, address: Address) {
        self.address = address;
        self.comparisons_left = MAX_ENTRIES;
    }

    /// Forgets the addresses where these texts are no longer, and lets them be searched for again.
    ///
    /// # Errors
    /// When nothing can be read at all.
    pub(super) fn confirm(
        memory: &impl ReadMemory,
        layout: &Layout,
        keys: &mut [&mut Self],
    ) -> Result<(), ReadError> {
        let candidates: Vec<_> = keys.iter().map(|key| (key.address, key.text)).collect();
        let equal = str_equals(memory, &layout.unicode, &candidates)?;
        for (key, equal) in keys.iter_mut().zip(equal) {
            key.comparisons_left = MAX_ENTRIES;
            if !equal {
                key.address = Address::NULL;
            }
        }
        Ok(())
    }

    /// Which entry has this key.
    ///
    /// # Errors
    /// When nothing can be read at all.
    pub(super) fn find(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        keys: &Keys,
    ) -> Result<Option<usize>, ReadError> {
        let same = |&(key, _): &(Address, Address)| key == self.address;
        if !self.address.is_null()
            && let Some(index) = keys.entries.iter().position(same)
        {
            return Ok(Some(index));
        }
        for (step, entries) in keys.entries.chunks(KEYS_A_STEP).enumerate() {
            let Some(left) = self.comparisons_left.checked_sub(entries.len() as u64) else {
                return Ok(None);
            };
            self.comparisons_left = left;
            let candidates: Vec<_> = entries.iter().map(|&(key, _)| (key, self.text)).collect();
            let equal = str_equals(memory, &layout.unicode, &candidates)?;
            if let Some(index) = equal.iter().position(|&equal| equal) {
                self.address = entries[index].0;
                return Ok(Some(step * KEYS_A_STEP + index));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO_3_10: DictKeysLayout =
        DictKeysLayout { used_entries: 32, indices: 40, index_table: IndexTable::Size(8) };
    const FROM_3_11: DictKeysLayout = DictKeysLayout {
        used_entries: 24,
        indices: 32,
        index_table: IndexTable::Logarithm { log2_bytes: 9, kind: 10 },
    };

    fn header_of_3_10(size: u64, count: u64) -> Option<Header> {
        let words = [1, size, 0xdead, 0, count];
        Header::decode(&words.map(u64::to_le_bytes).concat(), &TO_3_10)
    }

    fn header_of_3_11(log2_bytes: u8, kind: u8, count: u64) -> Option<Header> {
        let mut bytes = [1, 0, 0, count].map(u64::to_le_bytes).concat();
        bytes[9..11].copy_from_slice(&[log2_bytes, kind]);
        Header::decode(&bytes, &FROM_3_11)
    }

    #[test]
    fn entries_follow_an_index_whose_width_depends_on_its_size() {
        let entries = |size| header_of_3_10(size, 5).unwrap().entries;
        assert_eq!([8, 128, 256, 65_536].map(entries), [48, 168, 552, 262_184]);
        let header = header_of_3_10(8, 5).unwrap();
        assert_eq!((header.entry_size, header.key, header.count), (24, 8, 5));
    }

    #[test]
    fn entries_of_dicts_with_only_str_keys_have_no_hash_from_3_11_on() {
        let general = header_of_3_11(3, 0, 5).unwrap();
        assert_eq!(general, Header { entries: 40, entry_size: 24, key: 8, count: 5 });
        for kind in [1, 2] {
            let unicode = header_of_3_11(3, kind, 5).unwrap();
            assert_eq!(unicode, Header { entries: 40, entry_size: 16, key: 0, count: 5 });
        }
    }

    #[test]
    fn headers_that_cannot_be_are_refused() {
        assert_eq!(header_of_3_10(8, 9), None);
        assert_eq!(header_of_3_10(u64::MAX, 5), None);
        assert_eq!(header_of_3_11(3, 0, u64::MAX), None);
        assert_eq!(header_of_3_11(63, 0, 5), None);
        assert_eq!(header_of_3_11(255, 0, 5), None);
        assert_eq!(Header::decode(&[0; 8], &FROM_3_11), None);
    }

    #[test]
    fn a_value_is_among_the_keys_or_among_the_values() {
        let header = header_of_3_11(3, 1, 2).unwrap();
        let bytes = [10, 11, 20, 21].map(u64::to_le_bytes).concat();
        let keys = decode_entries(&bytes, &header, Address::new(0x1000)).unwrap();
        let pairs = [(10, 11), (20, 21)].map(|(key, value)| (Address::new(key), Address::new(value)));
        assert_eq!(keys.entries, pairs);
        let combined = Dict { keys: Address::new(0x1000), values: None };
        assert_eq!(combined.value_slot(&keys, 1), Address::new(0x1000 + 40 + 16 + 8));
        let split = Dict { values: Some(Address::new(0x2000)), ..combined };
        assert_eq!(split.value_slot(&keys, 1), Address::new(0x2008));
    }
}
