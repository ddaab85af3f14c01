//! `str` and `bytes` objects of the target, with a limit on how much of them is believed.

use super::decode::{u32_at, u64_at};
use super::layout::{BytesLayout, UnicodeLayout};
use crate::target::memory::{ReadError, ReadMemory};
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

/// The text of the `str` at `address`, at most [`MAX_CHARACTERS`] of it; lone surrogates become `\u{fffd}`.
///
/// # Errors
/// When the memory could not be read, or holds no compact `str`. (Strings made by `PyUnicode_New`, as
/// all names of the compiler are, are compact: CPython `Include/cpython/unicodeobject.h`.)
pub(super) fn read_str(
    memory: &impl ReadMemory,
    layout: &UnicodeLayout,
    address: Address,
) -> Result<String, ObjectError> {
    let implausible = ObjectError::Implausible(address);
    let mut header = [0; 64];
    let header_length = (layout.length.max(layout.state) + 8).min(64) as usize;
    memory.read(address, &mut header[..header_length])?;
    let length = u64_at(&header, layout.length).ok_or(implausible)?;
    let state = u32_at(&header, layout.state).ok_or(implausible)?;

    let bit = |bit: u32| state >> bit & 1 == 1;
    let width = u64::from(state >> layout.kind_shift & 7);
    if !bit(layout.compact_bit) || !matches!(width, 1 | 2 | 4) || length > i64::MAX as u64 {
        return Err(implausible);
    }
    let data = address + if bit(layout.ascii_bit) { layout.ascii_data } else { layout.compact_data };
    let mut bytes = vec![0; (length.min(MAX_CHARACTERS) * width) as usize];
    memory.read(data, &mut bytes)?;
    let mut text = decode(&bytes, width);
    if length > MAX_CHARACTERS {
        text.push('…');
    }
    Ok(text)
}

/// The text of characters of `width` bytes each: Latin-1, UCS-2 or UCS-4.
fn decode(bytes: &[u8], width: u64) -> String {
    match width {
        1 => bytes.iter().map(|&byte| char::from(byte)).collect(),
        2 => char::decode_utf16(bytes.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)))
            .map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect(),
        _ => (bytes.as_chunks().0.iter())
            .map(|unit| char::from_u32(u32::from_le_bytes(*unit)).unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect(),
    }
}

/// The content of the `bytes` object at `address`.
///
/// # Errors
/// When the memory could not be read, or the object is longer than `limit` bytes.
pub(super) fn read_bytes(
    memory: &impl ReadMemory,
    layout: &BytesLayout,
    address: Address,
    limit: u64,
) -> Result<Vec<u8>, ObjectError> {
    let length = memory.read_u64(address + layout.size)?;
    if length > limit {
        return Err(ObjectError::Implausible(address));
    }
    let mut bytes = vec![0; length as usize];
    memory.read(address + layout.data, &mut bytes)?;
    Ok(bytes)
}
