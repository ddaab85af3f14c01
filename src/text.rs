//! Text on its way to a person: lengths of time, and names of the target (of threads, functions and files). The
//! target may be hostile, so nothing that steers a terminal or turns text around reaches the reader as it is.

use std::borrow::Cow;

/// The text with everything invisible made visible: control characters become the pictures Unicode
/// has for them (`␛` for escape), and bidirectional controls, which can make text read as other
/// text, become `⟨U+202E⟩` and the like.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(needs_showing) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\0'..='\x1f' => shown.push(char::from_u32(0x2400 + character as u32).unwrap_or('\u{fffd}')),
            '\x7f' => shown.push('\u{2421}'),
            _ if needs_showing(character) => shown.push_str(&format!("⟨U+{:04X}⟩", character as u32)),
            _ => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// The text, cut to that many characters with an ellipsis where it is longer.
pub fn shorten(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some(_) => text.chars().take(characters.saturating_sub(1)).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// A length of time: `1.5 ms`, `250 ms`, `10.0 s`.
pub fn seconds(seconds: f64) -> String {
    match () {
        () if seconds < 0.009_95 => format!("{:.1} ms", seconds * 1000.0),
        () if seconds < 0.999_5 => format!("{:.0} ms", seconds * 1000.0),
        () => format!("{seconds:.1} s"),
    }
}

fn needs_showing(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_of_any_script_is_left_alone() {
        for text in ["worker-1", "größe_berechnen", "計算", "שלום", "😀"] {
            assert!(matches!(visible(text), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn lengths_of_time_have_the_unit_that_fits() {
        assert_eq!([0.0015, 0.25, 10.0].map(seconds), ["1.5 ms", "250 ms", "10.0 s"]);
        assert_eq!([0.009_99, 0.9999].map(seconds), ["10 ms", "1.0 s"]);
    }

    #[test]
    fn what_could_steer_a_terminal_is_shown() {
        assert_eq!(visible("\x1b[31mred\n"), "␛[31mred␊");
        assert_eq!(visible("a\u{202e}b\u{9b}c"), "a⟨U+202E⟩b⟨U+009B⟩c");
    }
}
