//! Text of the target made harmless, and the few ways in which gilspy puts figures into words. Texts are kept as they
//! are and made visible where they come out; only what is no text at all is made visible where it comes in.

mod shell;

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use unicode_general_category::{GeneralCategory, get_general_category};
use unicode_width::UnicodeWidthChar;

pub use shell::shell_word;

/// The longest name or path shown where the same one may be shown very often, in characters.
const LONGEST_NAME: usize = 500;

/// Marks that may stand on one letter: no script needs more. Hundreds would reach into the lines above and below.
const MOST_MARKS: usize = 4;

/// What makes one emoji of two, and is invisible anywhere else.
const JOINER: char = '\u{200d}';

/// The text with everything invisible made visible: control characters become the pictures Unicode has for them (`␛` for
/// escape); all else that is invisible, can make text read as other text, or means nothing to most readers (controls of
/// direction and format, variation selectors, private use, not assigned) becomes `⟨U+202E⟩` and the like. So do marks
/// that have no letter to stand on, or too many others below them. What joins two emoji to one stays.
pub fn visible(text: &str) -> Cow<'_, str> {
    let is_harmless = |character| !needs_showing(character) && !is_mark(character);
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    // There is nothing yet that a mark could stand on.
    let mut marks = MOST_MARKS;
    let mut before = ' ';
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        marks = if is_mark(character) { marks + 1 } else { 0 };
        let before = std::mem::replace(&mut before, character);
        match character {
            JOINER if is_emoji(before) && characters.peek().is_some_and(|next| is_emoji(*next)) => {
                shown.push(character);
            }
            '\0'..='\x1f' => shown.push(char::from_u32(0x2400 + character as u32).unwrap_or('\u{fffd}')),
            '\x7f' => shown.push('\u{2421}'),
            _ if marks > MOST_MARKS || needs_showing(character) => shown.push_str(&number(character.into())),
            _ => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// The text with everything invisible made visible, line by line: for texts of several lines of gilspy's own.
pub fn visible_lines(text: &str) -> String {
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

/// A name made visible, and cut where it is longer than any that a person gives.
pub fn name(text: &str) -> Cow<'_, str> {
    match visible(text) {
        Cow::Borrowed(text) if text.len() <= LONGEST_NAME => Cow::Borrowed(text),
        text => Cow::Owned(shorten(&text, LONGEST_NAME)),
    }
}

/// A file's name made visible, whatever bytes it has.
pub fn shown(path: impl AsRef<OsStr>) -> String {
    visible(&from_bytes(path.as_ref().as_bytes())).into_owned()
}

/// Bytes that ought to be UTF-8 as text; those that are not become `\xff` and the like.
pub fn from_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| push_byte(&mut text, *byte));
    }
    text
}

/// Adds a code point of Python's, which may be none of Unicode's. A lone surrogate that stands for a byte of a file's
/// name (PEP 383) becomes that byte, as in [`from_bytes`]; everything else that is no character `⟨U+D800⟩` and the like.
pub fn push_code_point(text: &mut String, code_point: u32) {
    match (char::from_u32(code_point), code_point) {
        (Some(character), _) => text.push(character),
        (None, 0xdc80..=0xdcff) => push_byte(text, code_point as u8),
        (None, _) => text.push_str(&number(code_point)),
    }
}

/// The columns that a text takes in a terminal at most: terminals that join characters may take fewer.
pub fn columns(text: &str) -> usize {
    text.chars().map(|character| character.width().unwrap_or(0)).sum()
}

/// The text in exactly that many columns of a terminal, cut with an ellipsis where it is longer.
pub fn pad(text: &str, width: usize) -> String {
    let mut cut = String::new();
    if columns(text) <= width {
        cut.push_str(text);
    } else {
        let mut used = 1;
        let fits = |character: &char| {
            used += character.width().unwrap_or(0);
            used <= width
        };
        cut.extend(text.chars().take_while(fits));
        cut.push('…');
    }
    let padding = width.saturating_sub(columns(&cut));
    cut + &" ".repeat(padding)
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

/// Whether a character must not come out as it is.
pub fn needs_showing(character: char) -> bool {
    match character {
        ' '..='~' => false,
        // Invisible, though letters, marks or symbols (`Default_Ignorable_Code_Point` of Unicode's
        // DerivedCoreProperties.txt, and the Braille pattern without dots).
        '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{2800}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{ffa0}'
        | '\u{e0100}'..='\u{e01ef}' => true,
        _ => matches!(
            get_general_category(character),
            GeneralCategory::Control
                | GeneralCategory::Format
                | GeneralCategory::LineSeparator
                | GeneralCategory::ParagraphSeparator
                | GeneralCategory::PrivateUse
                | GeneralCategory::Unassigned
        ),
    }
}

/// Whether it stands on the character before it.
fn is_mark(character: char) -> bool {
    !character.is_ascii() && character.width() == Some(0)
}

/// Whether it is a picture, or the colour of one.
fn is_emoji(character: char) -> bool {
    let category = get_general_category(character);
    character.width() == Some(2)
        && matches!(category, GeneralCategory::OtherSymbol | GeneralCategory::ModifierSymbol)
}

fn number(code_point: u32) -> String {
    format!("⟨U+{code_point:04X}⟩")
}

fn push_byte(text: &mut String, byte: u8) {
    text.push_str(&format!("\\x{byte:02x}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_text_of_any_script_is_left_alone() {
        for text in [
            "worker-1",
            "größe_berechnen",
            "計算　報告",
            "שלום",
            "مرحبا",
            "हिन्दी",
            "tiếng",
            "ti\u{65}\u{302}\u{301}ng",
            "한글",
            "ชื่อ",
            "😀👍🏽🇩🇪👩\u{200d}💻👩🏽\u{200d}🚀",
        ] {
            assert_eq!(visible(text), text);
        }
        assert!(matches!(visible("worker-1"), Cow::Borrowed(_)));
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

    #[test]
    fn what_is_invisible_is_shown_whatever_it_is_called() {
        for (character, name) in [
            ('\u{ad}', "soft hyphen"),
            ('\u{34f}', "grapheme joiner"),
            ('\u{61c}', "Arabic letter mark"),
            ('\u{200b}', "zero width space"),
            ('\u{200d}', "joiner"),
            ('\u{2028}', "line separator"),
            ('\u{2066}', "isolate"),
            ('\u{2800}', "Braille without dots"),
            ('\u{3164}', "Hangul filler"),
            ('\u{e000}', "private use"),
            ('\u{fdd0}', "no character"),
            ('\u{fe0f}', "variation selector"),
            ('\u{feff}', "byte order mark"),
            ('\u{fffe}', "no character"),
            ('\u{e0041}', "tag"),
            ('\u{e0100}', "variation selector"),
            ('\u{10ffff}', "no character"),
        ] {
            let expected = format!("a⟨U+{:04X}⟩b", character as u32);
            assert_eq!(visible(&format!("a{character}b")), expected, "{name}");
        }
    }

    #[test]
    fn marks_stand_on_a_letter_and_not_in_a_tower() {
        assert_eq!(visible("\u{301}a"), "⟨U+0301⟩a");
        let tower = "a".to_owned() + &"\u{301}".repeat(6) + "b\u{301}";
        assert_eq!(visible(&tower), "a\u{301}\u{301}\u{301}\u{301}⟨U+0301⟩⟨U+0301⟩b\u{301}");
    }

    #[test]
    fn what_is_no_text_is_shown_byte_by_byte() {
        assert_eq!(from_bytes(b"caf\xe9 \xc3\xa9 \xff\xfe\xf0\x9f"), "caf\\xe9 é \\xff\\xfe\\xf0\\x9f");
        assert_eq!(shown(OsStr::from_bytes(b"a\x1b\x9b")), "a␛\\x9b");
    }

    #[test]
    fn a_file_whose_name_is_no_text_is_called_the_same_by_the_kernel_and_by_python() {
        let mut python = String::new();
        "caf\0".chars().for_each(|character| push_code_point(&mut python, character.into()));
        for lone in [0xdce9, 0xd83d, 0xde00, 0x11_0000] {
            push_code_point(&mut python, lone);
        }
        assert_eq!(python, "caf\0\\xe9⟨U+D83D⟩⟨U+DE00⟩⟨U+110000⟩");
    }

    #[test]
    fn long_names_are_cut() {
        assert!(matches!(name("worker-1"), Cow::Borrowed("worker-1")));
        let (long, hostile) = ("x".repeat(10_000), "\u{202e}".repeat(1_000_000));
        assert_eq!([name(&long), name(&hostile)].map(|name| name.chars().count()), [LONGEST_NAME; 2]);
    }

    fn is_harmless(shown: &str) -> bool {
        shown.chars().all(|character| character == JOINER || !needs_showing(character))
    }

    #[test]
    fn a_joiner_stays_between_emoji_only() {
        for text in ["a\u{200d}b", "計\u{200d}算", "👩\u{200d}", "👩\u{200d}\u{200d}💻", "\u{200d}💻"]
        {
            assert!(!visible(text).contains(JOINER), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_text_is_it_comes_out_harmless(text in any::<String>()) {
            let shown = visible(&text);
            prop_assert!(is_harmless(&shown), "{shown:?}");
            prop_assert_eq!(visible(&shown), &*shown, "what is visible already stays");
            prop_assert!(shown.len() <= 13 * text.len());
            let marks = shown.split(|character| !is_mark(character)).map(|marks| marks.chars().count());
            prop_assert!(marks.max() <= Some(MOST_MARKS));
        }

        #[test]
        fn whatever_bytes_there_are_they_come_out_harmless(bytes in any::<Vec<u8>>()) {
            let shown = shown(OsStr::from_bytes(&bytes));
            prop_assert!(is_harmless(&shown), "{shown:?}");
        }
    }
}
