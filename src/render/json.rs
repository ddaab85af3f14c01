//! JSON whose strings are the target's as they are, for programs to compare; but written so that it may go to a terminal:
//! what must not come out as it is becomes `\u202e` and the like, which reads as the same string.

use std::io::{Error, ErrorKind, Result, Write};

use serde::Serialize;

use crate::text::needs_showing;

/// Writes it over several lines, the last one ended.
///
/// # Errors
/// When the writer fails.
pub(super) fn write(value: &impl Serialize, writer: &mut impl Write) -> serde_json::Result<()> {
    serde_json::to_writer_pretty(Escape(&mut *writer), value)?;
    writer.write_all(b"\n").map_err(serde_json::Error::io)
}

/// Escapes what serde_json leaves: it escapes what JSON has to have escaped, 0 to 31. What is not ASCII stands in
/// strings only.
struct Escape<W>(W);

impl<W: Write> Write for Escape<W> {
    /// serde_json writes whole characters.
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let text = std::str::from_utf8(bytes).map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
        let mut written = 0;
        // Line feeds are those between values.
        let to_escape = |character: char| character != '\n' && needs_showing(character);
        for (place, found) in text.match_indices(to_escape) {
            self.0.write_all(&bytes[written..place])?;
            for unit in found.encode_utf16() {
                write!(self.0, "\\u{unit:04x}")?;
            }
            written = place + found.len();
        }
        self.0.write_all(&bytes[written..])?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strings_are_the_same_again_and_harmless_meanwhile(strings in any::<Vec<String>>()) {
            let mut json = Vec::new();
            write(&strings, &mut json).unwrap();
            let json = String::from_utf8(json).unwrap();
            prop_assert!(!json.chars().any(|it| it != '\n' && needs_showing(it)), "{json:?}");
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), strings);
        }
    }
}
