//! Names of files in the commands that gilspy suggests: pasted into a shell, they are that file and nothing else.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::needs_showing;

/// The name of a file as one word of bash, zsh or ksh, quoted where it has to be. It never reads as an option.
pub fn shell_word(path: impl AsRef<OsStr>) -> String {
    let path = path.as_ref();
    let path = match path.as_bytes().first() {
        Some(b'-') => [OsStr::new("./"), path].into_iter().collect::<OsString>(),
        _ => path.to_owned(),
    };
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+=:,@%".contains(byte);
    match path.to_str() {
        Some(text) if !text.is_empty() && text.bytes().all(|byte| is_plain(&byte)) => text.to_owned(),
        // In such quotes nothing has a meaning, not even `!`, with which interactive shells look back.
        Some(text) if !text.contains('\'') && !text.chars().any(needs_showing) => format!("'{text}'"),
        _ => in_bytes(path.as_bytes()),
    }
}

/// `$'caf\351'`: what is not ASCII as its bytes, and so what would have a meaning.
fn in_bytes(bytes: &[u8]) -> String {
    let byte = |&byte: &u8| match byte {
        b' '..=b'~' if !b"'\\!".contains(&byte) => char::from(byte).to_string(),
        // Three octal digits end by themselves; what follows `\x` could be taken for more of it.
        _ => format!("\\{byte:03o}"),
    };
    format!("$'{}'", bytes.iter().map(byte).collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use proptest::prelude::*;

    /// The words that bash makes of a line.
    fn words(line: &str) -> Vec<Vec<u8>> {
        let output = Command::new("bash").args(["-c", &format!("printf '%s\\0' {line}")]).output().unwrap();
        assert!(output.status.success(), "{line}");
        let words = output.stdout.strip_suffix(b"\0").unwrap();
        words.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn ordinary_names_are_not_quoted() {
        for name in ["gilspy-4242-20261120T140211Z.gilspy", "/tmp/a_b.gilspy"] {
            assert_eq!(shell_word(name), name);
        }
    }

    #[test]
    fn a_name_that_begins_like_an_option_is_a_file() {
        assert_eq!(shell_word("-rf"), "./-rf");
    }

    #[test]
    fn pasted_into_a_shell_a_name_is_that_file() {
        for name in [
            &b"a b.gilspy"[..],
            b"it's \"it\" !x",
            b"$(touch x)`touch x`$HOME",
            b"a;b|c&d>e<f*g?[h]{i,j}~!k#l\\m",
            b"~",
            b"#x",
            b"a\nb\tc\x1b[31md",
            b"caf\xe9 \xff9",
            "größe\u{202e}".as_bytes(),
            "größe 計算".as_bytes(),
            b"",
        ] {
            let line = shell_word(OsStr::from_bytes(name));
            assert!(!line.chars().any(needs_showing), "{line:?}");
            assert_eq!(words(&line), [name], "{line}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn whatever_a_file_is_called(name in proptest::collection::vec(1..=255_u8, 1..30)) {
            let line = shell_word(OsStr::from_bytes(&name));
            prop_assert!(!line.chars().any(needs_showing), "{line:?}");
            let expected = if name[0] == b'-' { [b"./", &name[..]].concat() } else { name };
            prop_assert_eq!(words(&line), [expected]);
        }
    }
}
