//! What of a program's stderr may be shown in an error: its end, as plain text in one line, without what may be a secret.

mod random;
mod redact;

use zeroize::Zeroizing;

/// Of the plain text so much is shown, counted from its end, where programs say what went wrong.
const SHOWN: usize = 600;

/// The last that a program wrote, as an error may show it.
///
/// `begun` says that there was more before it. Every word that also stands in `stdout`, where tokens are, is cut, and so is each of `known`.
pub(super) fn shown(tail: &[u8], begun: bool, stdout: &[u8], known: &[&str]) -> String {
    let text = Zeroizing::new(String::from_utf8_lossy(tail).into_owned());
    let text = plain(&text);
    let text = if begun { whole_words(&text) } else { &text };
    last(&one_line(&redact::redact(text, stdout, known)))
}

/// Whether a variable's value is to be cut wherever it stands: not that of a region or a flag.
pub(super) fn is_secret(name: &str, value: &str) -> bool {
    (redact::is_secrets_name(name) && value.len() >= redact::SHORTEST) || value.len() >= 16
}

/// Without escape sequences (ECMA-48 section 5.4: colours, titles, links) and what else no reader sees. They go without a gap: what they part,
/// a token perhaps, must be whole again to be found.
fn plain(text: &str) -> Zeroizing<String> {
    let mut plain = Zeroizing::new(String::with_capacity(text.len()));
    let mut rest = text.chars();
    while let Some(char) = rest.next() {
        match char {
            '\u{1b}' => match rest.next() {
                Some('[') => skip_control(&mut rest),
                Some(']' | 'P' | 'X' | '^' | '_') => skip_string(&mut rest),
                Some(' '..='/') => drop(rest.find(|char| !matches!(char, ' '..='/'))),
                _ => {}
            },
            '\u{9b}' => skip_control(&mut rest),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => skip_string(&mut rest),
            '\n' | '\r' => plain.push('\n'),
            '\t' => plain.push(' '),
            _ if char.is_control() || is_invisible(char) => {}
            _ => plain.push(char),
        }
    }
    plain
}

/// To the letter that ends it.
fn skip_control(rest: &mut std::str::Chars<'_>) {
    rest.find(|char| matches!(char, '@'..='~'));
}

/// To its terminator. One that has none would hide all that follows: it ends with its line.
fn skip_string(rest: &mut std::str::Chars<'_>) {
    let end = rest.find(|char| matches!(char, '\u{7}' | '\u{9c}' | '\u{1b}' | '\n'));
    if end == Some('\u{1b}') {
        rest.next();
    }
}

/// Marks without width, and those that reorder the text around them.
fn is_invisible(char: char) -> bool {
    matches!(char, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Where the beginning is missing, half a token may stand at the front, and half of one is not known for what it is: the first line goes, or, where
/// there is but one, its first word.
fn whole_words(text: &str) -> &str {
    let text = text.trim_end();
    let rest = text.split_once('\n').or_else(|| text.split_once(' '));
    rest.map_or("", |(_, rest)| rest)
}

fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for part in text.lines().map(|line| line.split_whitespace()) {
        let before = line.len();
        for word in part {
            match line.len() {
                0 => {}
                length if length == before => line.push_str(" | "),
                _ => line.push(' '),
            }
            line.push_str(word);
        }
    }
    line
}

fn last(line: &str) -> String {
    match line.char_indices().rev().nth(SHOWN) {
        Some((at, char)) => format!("…{}", line[at + char.len_utf8()..].trim_start()),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        shown(text.as_bytes(), false, b"", &[])
    }

    #[test]
    fn lines_become_one_and_blank_ones_go() {
        assert_eq!(of("ERROR: not logged in\r\n\n  run  `x login`\n"), "ERROR: not logged in | run `x login`");
        assert_eq!(of(""), "");
        assert_eq!(of(" \n\t\r\n"), "");
        assert_eq!(of("Prüfung fehlgeschlagen: 失敗\n"), "Prüfung fehlgeschlagen: 失敗");
    }

    #[test]
    fn escape_sequences_and_what_no_reader_sees_are_removed() {
        for (raw, plain) in [
            ("\u{1b}[1;31mno\u{1b}[0m login", "no login"),
            ("\u{9b}31mno\u{9b}m login", "no login"),
            ("\u{1b}]0;a title\u{7}no login", "no login"),
            ("\u{1b}]8;;https://x\u{1b}\\no login", "no login"),
            ("\u{1b}]never ended\nno login", "no login"),
            ("\u{1b}(Bno login\u{1b}c", "no login"),
            ("n\u{8}o\u{0} lo\u{7f}gin\u{1b}", "no login"),
            ("n\u{200b}o \u{202e}login\u{feff}", "no login"),
            ("\u{1b}[", ""),
        ] {
            assert_eq!(of(raw), plain, "{raw:?}");
        }
    }

    #[test]
    fn a_token_is_found_though_marks_part_it_or_nothing_is_utf8() {
        for raw in [
            &b"eyJ\x1b[0mhbGciOi\x1b[1mJIUzI1NiJ9.x.s3cr3t"[..],
            b"e\0y\0J\0h\0b\0G\0c\0i\0.\0s\x003\0c\0r\x003\0t\0",
            b"\xff\xfe token=s3cr3t\xff \xff",
            "eyJ\u{200b}hbGci.x.s3cr3t".as_bytes(),
        ] {
            let text = shown(raw, false, b"", &[]);
            assert!(!text.contains("s3cr3t") && text.contains("[cut]"), "{text}");
        }
    }

    #[test]
    fn half_a_token_at_the_front_goes_with_its_line_or_word() {
        let begun = |text: &str| shown(text.as_bytes(), true, b"", &[]);
        assert_eq!(begun("cr3t and more\nno login"), "no login");
        assert_eq!(begun("cr3t no login"), "no login");
        assert_eq!(begun("cr3t no login\n"), "no login");
        assert_eq!(begun("cr3t"), "");
    }

    #[test]
    fn a_long_text_is_shown_from_its_end() {
        let long = format!("{}the end", "ö ".repeat(4000));
        let text = of(&long);
        assert!(text.starts_with('…') && text.ends_with("the end"), "{text}");
        assert!(text.chars().count() <= SHOWN + 1);
    }

    #[test]
    fn whatever_is_written_becomes_one_short_line_of_plain_text() {
        const PIECES: [&[u8]; 24] = [
            b"\x1b[",
            b"\x1b]",
            b"\x1b",
            b"\x9b",
            b"\xc2\x9b",
            b"\"",
            b"'",
            b"\\",
            b"token",
            b"password",
            b"=",
            b": ",
            b"b'",
            b"Bearer ",
            b"://",
            b"@",
            b"-----BEGIN",
            b"-----END",
            b"\xc3\xb6",
            b"\xff",
            b"\n",
            b" ",
            b"--key ",
            b"eyJ",
        ];
        let mut rng = fastrand::Rng::with_seed(1);
        let mut below = |most: usize| rng.usize(..most);
        for _ in 0..500 {
            let raw: Vec<u8> = (0..below(600)).flat_map(|_| PIECES[below(PIECES.len())]).copied().collect();
            let text = shown(&raw, below(2) == 0, &raw[..below(raw.len() + 1)], &["token", "\u{f6}"]);
            assert!(text.chars().count() <= SHOWN + 1 && !text.contains(char::is_control), "{text:?}");
        }
    }
}
