//! `str` and `bytes` objects of the target, with a limit on how much of them is believed.

use super::batch::Pieces;
use super::decode::{pointer_at, u32_at, u64_at};
use super::layout::UnicodeLayout;
use crate::target::memory::{ReadError, ReadMemory};
use crate::text::push_code_point;
use crate::units::Address;

/// The longest name or path shown, in characters; longer ones are cut and say so with an ellipsis.
pub(super) const MAX_CHARACTERS: u64 = 4096;

/// Why an object could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// Its memory could not be read.
    #[error(transparent)]
    Memory(#[from] ReadError),
    /// What is there cannot be such an object.
    #[error("{0:?} does not hold the expected object")]
    Implausible(Address),
}

/// A `str` of which the header is known, but not the characters.
#[derive(Debug, Clone, Copy)]
pub(super) struct FoundStr {
    header: StrHeader,
}

impl FoundStr {
    /// The `str` at `address`.
    ///
    /// # Errors
    /// When the memory could not be read, or holds no compact `str`. (Strings made by `PyUnicode_New`, as
    /// all names of the compiler are, are compact: CPython `Include/cpython/unicodeobject.h`.)
    pub(super) fn at(
        memory: &impl ReadMemory,
        layout: &UnicodeLayout,
        address: Address,
    ) -> Result<Self, ObjectError> {
        let mut bytes = [0; MAX_STR_HEADER as usize];
        let bytes = &mut bytes[..str_header_length(layout) as usize];
        memory.read(address, bytes)?;
        let header = StrHeader::decode(bytes, layout).ok_or(ObjectError::Implausible(address))?;
        Ok(FoundStr { header })
    }

    /// How many bytes from its address on hold all of it that is shown.
    pub(super) fn length(&self) -> usize {
        self.header.length_shown()
    }

    /// Its text, at most [`MAX_CHARACTERS`] of it, out of so many bytes, lone surrogates as
    /// [`push_code_point`] shows them. `None` where these are of another `str`.
    pub(super) fn text(&self, layout: &UnicodeLayout, bytes: &[u8]) -> Option<String> {
        let same = StrHeader::decode(bytes, layout) == Some(self.header);
        same.then(|| self.header.text(bytes.get(self.header.characters as usize..).unwrap_or_default()))
    }
}

/// What came of reading a `str` that a pointer leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StrBehind {
    /// Its text, as [`FoundStr::text`] gives it; the pointer led to it before and after.
    Text(String),
    /// The pointer or the `str` changed meanwhile.
    Changed,
    /// There is no `str`, or it could not be read.
    Absent,
}

/// The texts of the `str` objects that the pointers at these addresses lead to.
///
/// The memory of a `str` that is no longer pointed to soon holds another one, so each is read between two
/// reads of its pointer, right beside each other in one batch.
///
/// # Errors
/// When nothing can be read at all.
pub(super) fn read_strs_behind(
    memory: &impl ReadMemory,
    layout: &UnicodeLayout,
    pointers: &[Address],
) -> Result<Vec<StrBehind>, ReadError> {
    let pieces = Pieces::read_equal(memory, pointers.iter().copied(), 8)?;
    let target = |bytes: Option<&[u8]>| bytes.and_then(|bytes| pointer_at(bytes, 0)).unwrap_or_default();
    let targets: Vec<_> = pieces.iter().map(target).collect();
    let pieces = Pieces::read_equal(memory, targets.iter().copied(), str_header_length(layout))?;
    let headers: Vec<_> = pieces.iter().map(|bytes| StrHeader::decode(bytes?, layout)).collect();
    let mut wanted = Vec::with_capacity(pointers.len() * 3);
    for ((&pointer, &target), header) in pointers.iter().zip(&targets).zip(&headers) {
        let (pointer, length) = header.map_or((Address::NULL, 0), |header| (pointer, header.length_shown()));
        wanted.extend([(pointer, 8), (target, length), (pointer, 8)]);
    }
    let pieces = Pieces::read(memory, &wanted)?;
    let mut pieces = pieces.iter();
    Ok((targets.into_iter().zip(headers))
        .map(|(expected, header)| {
            let [before, text, after] = [(); 3].map(|()| pieces.next().flatten());
            let (Some(header), Some(text)) = (header, text) else { return StrBehind::Absent };
            let same = [before, after].map(target) == [expected; 2];
            let text = FoundStr { header }.text(layout, text).filter(|_| same);
            text.map_or(StrBehind::Changed, StrBehind::Text)
        })
        .collect())
}

/// For each address, whether a `str` of that ASCII text is there.
///
/// # Errors
/// When nothing can be read at all.
pub(super) fn str_equals(
    memory: &impl ReadMemory,
    layout: &UnicodeLayout,
    candidates: &[(Address, &str)],
) -> Result<Vec<bool>, ReadError> {
    let characters = layout.ascii_data.min(MAX_STR_HEADER);
    let wanted: Vec<_> =
        candidates.iter().map(|(address, text)| (*address, characters as usize + text.len())).collect();
    let pieces = Pieces::read(memory, &wanted)?;
    let equals = |bytes: Option<&[u8]>, text: &str| {
        let bytes = bytes?;
        let header = StrHeader::decode(bytes, layout)?;
        let read = bytes.get(header.characters as usize..)?;
        Some(header.width == 1 && header.length == text.len() as u64 && read == text.as_bytes())
    };
    Ok(pieces.iter().zip(candidates).map(|(bytes, (_, text))| equals(bytes, text) == Some(true)).collect())
}

/// A longer header than that of any `PyASCIIObject`: 56 bytes in a free-threaded build.
const MAX_STR_HEADER: u64 = 64;

/// How many bytes of a `str` hold the fields of its header.
fn str_header_length(layout: &UnicodeLayout) -> u64 {
    (layout.length.max(layout.state) + 8).min(MAX_STR_HEADER)
}

/// What a `str` says of its characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StrHeader {
    /// Where they start.
    characters: u64,
    /// Bytes a character: 1, 2 or 4.
    width: u64,
    /// How many characters there are.
    length: u64,
}

impl StrHeader {
    /// `None` where the bytes cannot be the header of a compact `str`.
    fn decode(bytes: &[u8], layout: &UnicodeLayout) -> Option<Self> {
        let length = u64_at(bytes, layout.length)?;
        let state = u32_at(bytes, layout.state)?;
        let bit = |bit: u32| state >> bit & 1 == 1;
        let width = u64::from(state >> layout.kind_shift & 7);
        let plausible = bit(layout.compact_bit) && matches!(width, 1 | 2 | 4) && length <= i64::MAX as u64;
        plausible.then_some(StrHeader {
            characters: if bit(layout.ascii_bit) { layout.ascii_data } else { layout.compact_data },
            width,
            length,
        })
    }

    /// How many bytes the characters that are shown take.
    fn bytes_shown(&self) -> usize {
        (self.length.min(MAX_CHARACTERS) * self.width) as usize
    }

    /// How many bytes of the `str` hold the header and the characters that are shown.
    fn length_shown(&self) -> usize {
        self.characters as usize + self.bytes_shown()
    }

    /// The text, from the bytes of the characters that are shown.
    fn text(&self, characters: &[u8]) -> String {
        let mut text = decode(characters, self.width);
        if self.length > MAX_CHARACTERS {
            text.push('…');
        }
        text
    }
}

/// The text of characters of `width` bytes each. Each is a code point, also where there are two bytes to it: what looks
/// like a pair of UTF-16 in a `str` is two lone surrogates.
fn decode(bytes: &[u8], width: u64) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut push = |code_point| push_code_point(&mut text, code_point);
    match width {
        1 => bytes.iter().for_each(|byte| push(u32::from(*byte))),
        2 => bytes.as_chunks().0.iter().for_each(|unit| push(u16::from_le_bytes(*unit).into())),
        _ => bytes.as_chunks().0.iter().for_each(|unit| push(u32::from_le_bytes(*unit))),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surrogates_are_shown_and_different_names_stay_different() {
        let of_two = |units: [u16; 3]| decode(&units.map(u16::to_le_bytes).concat(), 2);
        assert_eq!(of_two([0x61, 0xdce9, 0x263a]), "a\\xe9☺");
        assert_eq!(of_two([0xd83d, 0xde00, 0x62]), "⟨U+D83D⟩⟨U+DE00⟩b");
        let of_four = |units: [u32; 3]| decode(&units.map(u32::to_le_bytes).concat(), 4);
        assert_eq!(of_four([0xd800, 0x1f600, u32::MAX]), "⟨U+D800⟩😀⟨U+FFFFFFFF⟩");
        assert_eq!(decode(b"caf\xe9", 1), "café");
    }
}
