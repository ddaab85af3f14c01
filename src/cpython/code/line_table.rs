//! The three formats in which CPython keeps the line of each instruction.
//!
//! A table comes from the target: it may be cut off or nonsense. A look-up reads it once from front to
//! back, and answers `None` rather than a line that is not there.

use crate::cpython::layout::LineTable;

/// The line of the instruction that starts at `offset` bytes, in the table of a code object whose first
/// line is `first_line`.
pub(super) fn line_at(format: LineTable, table: &[u8], first_line: u32, offset: u32) -> Option<u32> {
    let line = match format {
        LineTable::Increments(_) => increments(table, first_line, offset),
        LineTable::Ranges(_) => ranges(table, first_line, offset),
        LineTable::Locations(_) => locations(table, first_line, offset),
    }?;
    u32::try_from(line).ok().filter(|&line| line > 0)
}

/// CPython 3.9 `Objects/lnotab_notes.txt`: pairs of a step in bytes and a signed step in lines.
fn increments(table: &[u8], first_line: u32, offset: u32) -> Option<i64> {
    let mut line = i64::from(first_line);
    let mut start = 0_u32;
    for &[bytes, lines] in table.as_chunks().0 {
        start = start.checked_add(u32::from(bytes))?;
        if start > offset {
            break;
        }
        line += i64::from(lines as i8);
    }
    Some(line)
}

/// CPython 3.10 `Objects/lnotab_notes.txt` and `advance` in `Objects/codeobject.c`: pairs of a range's
/// length in bytes and its signed step in lines; -128 marks a range without a line.
fn ranges(table: &[u8], first_line: u32, offset: u32) -> Option<i64> {
    let mut line = i64::from(first_line);
    let mut end = 0_u32;
    for &[bytes, lines] in table.as_chunks().0 {
        end = end.checked_add(u32::from(bytes))?;
        let has_line = lines as i8 != -128;
        if has_line {
            line += i64::from(lines as i8);
        }
        if offset < end {
            return has_line.then_some(line);
        }
    }
    None
}

/// CPython 3.11 `Objects/locations.md`: entries of a byte with kind and length in code units of two
/// bytes, then numbers by kind.
fn locations(table: &[u8], first_line: u32, offset: u32) -> Option<i64> {
    let mut line = i64::from(first_line);
    let mut end = 0_u32;
    let mut bytes = table.iter().copied();
    while let Some(head) = bytes.next() {
        let kind = head >> 3 & 15;
        end = end.checked_add((u32::from(head & 7) + 1) * 2)?;
        match kind {
            0..=9 => {
                bytes.next()?;
            }
            10..=12 => {
                line += i64::from(kind - 10);
                bytes.next()?;
                bytes.next()?;
            }
            13 => line += signed_varint(&mut bytes)?,
            14 => {
                line += signed_varint(&mut bytes)?;
                for _end_line_and_columns in 0..3 {
                    varint(&mut bytes)?;
                }
            }
            _ => {}
        }
        if offset < end {
            return (kind != 15).then_some(line);
        }
    }
    None
}

/// Six bits a byte, least significant first, bit 6 says that more follow.
fn varint(bytes: &mut impl Iterator<Item = u8>) -> Option<u32> {
    let mut value = 0_u32;
    for shift in (0..32).step_by(6) {
        let byte = bytes.next()?;
        value |= u32::from(byte & 63).checked_shl(shift)?;
        if byte & 64 == 0 {
            return Some(value);
        }
    }
    None
}

/// A varint whose lowest bit is the sign.
fn signed_varint(bytes: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let value = varint(bytes)?;
    let magnitude = i64::from(value >> 1);
    Some(if value & 1 == 1 { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn increments_step_lines_both_ways() {
        let table = [0, 1, 6, 2, 4, 0xff];
        let line = |offset| line_at(LineTable::Increments(0), &table, 10, offset);
        assert_eq!(
            [line(0), line(5), line(6), line(9), line(10), line(99)].map(Option::unwrap),
            [11, 11, 13, 13, 12, 12]
        );
    }

    #[test]
    fn ranges_may_have_no_line() {
        let table = [4, 1, 2, 0x80, 6, 2];
        let line = |offset| line_at(LineTable::Ranges(0), &table, 10, offset);
        assert_eq!(
            [line(0), line(2), line(4), line(6), line(11), line(12)],
            [Some(11), Some(11), None, Some(13), Some(13), None]
        );
    }

    #[test]
    fn locations_of_every_kind_are_stepped_over() {
        let table = [
            0x80 | 13 << 3,     // one unit, no columns
            2,                  // +1
            0x80 | 1,           // two units, short form
            0,                  //
            0x80 | 11 << 3,     // one unit, one line on
            0,                  //
            0,                  //
            0x80 | 14 << 3,     // one unit, long form
            3,                  // -1
            0,                  //
            0,                  //
            0,                  //
            0x80 | 15 << 3 | 1, // two units, no line
        ];
        let line = |offset| line_at(LineTable::Locations(0), &table, 10, offset);
        assert_eq!(
            [line(0), line(2), line(5), line(6), line(8), line(10), line(14)],
            [Some(11), Some(11), Some(11), Some(12), Some(11), None, None]
        );
    }

    proptest! {
        #[test]
        fn no_table_can_make_a_look_up_panic(
            table in prop::collection::vec(any::<u8>(), 0..300), first_line: u32, offset: u32, format in 0..3
        ) {
            let formats = [LineTable::Increments(0), LineTable::Ranges(0), LineTable::Locations(0)];
            line_at(formats[format as usize], &table, first_line, offset);
        }
    }
}
