//! Nothing that the run of all the tests printed or logged holds a token or a credential that it used.
//!
//! `scripts/test` runs the others, and this one last. What they leave for it is said in `support/whole_run.rs`.

use aho_corasick::AhoCorasick;
use base64::{
    Engine,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, iter,
    path::Path,
};

/// A shorter secret is looked for as a word of its own: many a word holds a `t1`.
const LONG: usize = 8;
/// In what tests make up on the way, in base64 as well.
const MARKS: [&str; 2] = ["s3cr3t", "cr3dential"];
/// What the examples hold, which register nothing: credentials, and of tokens the session that `two_stages` keeps to itself and the signature of
/// made-up JWTs. Their servers say on purpose which token they saw, so most tokens are not here.
const EXAMPLES: [&str; 7] =
    ["durable-credential", "my-api-key", "my-secret", "durable", "session-1", "session-2", "c2lnbmF0dXJl"];

/// Everything to look for, and the secret it gives away.
#[derive(Default)]
struct Forms(BTreeMap<String, String>);

impl Forms {
    fn of<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut forms = Self::default();
        for secret in secrets {
            // The parts of a JWT but the first, which is the same for many.
            let parts = secret.split('.').skip(1).filter(|part| part.len() >= LONG);
            for part in iter::once(secret).chain(parts) {
                forms.add(part, secret);
            }
        }
        for mark in MARKS {
            forms.add_hidden(mark, mark);
        }
        forms
    }

    fn add(&mut self, part: &str, secret: &str) {
        if part.len() >= LONG {
            self.add_hidden(part, secret);
        } else if part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) && !numbered(part) {
            // Any sentence may hold the word `old`, and any field be 7: they count where a value or a header is shown.
            self.0.insert(format!("\"{part}\""), secret.to_owned());
            for before in ["Bearer ", "Basic ", "Token ", "token=", "secret="] {
                self.0.insert(format!("{before}{part}"), secret.to_owned());
            }
        } else {
            self.0.insert(part.to_owned(), secret.to_owned());
        }
    }

    /// In other clothes too: as text and bytes are shown by `Debug`, in a form, and in base64, wherever in it.
    fn add_hidden(&mut self, part: &str, secret: &str) {
        let bytes: Vec<_> = part.bytes().map(|byte| byte.to_string()).collect();
        let form: String = form_urlencoded::byte_serialize(part.as_bytes()).collect();
        let percent = form.replace('+', "%20");
        let base64 = (0..3).flat_map(|offset| base64_at(offset, part));
        let plain = [part.to_owned(), part.escape_debug().to_string(), bytes.join(", "), form, percent];
        for form in plain.into_iter().chain(base64) {
            self.0.insert(form, secret.to_owned());
        }
    }

    /// Which secrets are in this text, and the lines that hold them.
    fn find<'a>(&self, text: &'a str) -> BTreeSet<(&str, &'a str)> {
        let (forms, secrets): (Vec<_>, Vec<_>) = self.0.iter().unzip();
        let search = AhoCorasick::new(&forms).expect("no more secrets than can be searched for");
        // The same lines come again and again.
        let lines: BTreeSet<_> = text.lines().collect();
        let mut found = BTreeSet::new();
        for line in lines {
            let inside = |at: usize| line.as_bytes().get(at).is_some_and(u8::is_ascii_alphanumeric);
            for hit in search.find_overlapping_iter(line) {
                let joined = inside(hit.start().wrapping_sub(1)) || inside(hit.end());
                let secret = secrets[hit.pattern()];
                if secret.len() >= LONG || MARKS.contains(&secret.as_str()) || !joined {
                    found.insert((secret.as_str(), line));
                }
            }
        }
        found
    }
}

/// `t12`: no word, and no number.
fn numbered(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit()) && text.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// The letters that this is sure to become in base64 so many bytes from the beginning of three.
fn base64_at(offset: usize, part: &str) -> [String; 2] {
    let bytes = [&vec![0; offset], part.as_bytes()].concat();
    // Those at the edges hold bits of what is before and after.
    let sure = (offset * 8).div_ceil(6)..bytes.len() * 8 / 6;
    [BASE64_STANDARD_NO_PAD.encode(&bytes), BASE64_URL_SAFE_NO_PAD.encode(&bytes)]
        .map(|text| text[sure.clone()].to_owned())
}

// Scenario 61; abraunegg/onedrive#3838, PelicanPlatform/pelican#2758, okpy/ok-client#191.
#[test]
#[ignore = "scripts/test runs it when all others have run"]
fn nothing_that_the_whole_run_printed_holds_a_secret_that_it_used() {
    let directory = std::env::var_os("TEST_RUN").expect("scripts/test says in TEST_RUN where the run was written down");
    let read = |name: &str| {
        let path = Path::new(&directory).join(name);
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let secrets = read("secrets");
    let secrets: BTreeSet<String> = secrets.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let forms = Forms::of(secrets.iter().map(String::as_str).chain(EXAMPLES));
    let (log, output) = (read("log"), read("output"));
    // Both are really there: what is searched, and what is searched for.
    assert!(secrets.len() > 100 && secrets.contains("t1"), "only {} secrets", secrets.len());
    for said in ["tower_jwt_refresh::provider", "flight over", "TRACE"] {
        assert!(log.contains(said), "the log was not written down: no `{said}`");
    }
    assert!(output.contains("test result: ok"), "the output was not written down");
    let found: Vec<_> = forms.find(&log).into_iter().chain(forms.find(&output)).collect();
    assert!(found.is_empty(), "{} lines hold a secret, such as {:#?}", found.len(), &found[..found.len().min(20)]);
}

#[test]
fn a_secret_is_found_in_every_form_and_only_where_it_is_one() {
    let jwt = "e30.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl";
    let forms = Forms::of(["t1", "old", "durable-k3y é&\"", jwt]);
    let found = |line: &str| forms.find(line).into_iter().map(|(secret, _)| secret.to_owned()).collect::<Vec<_>>();
    for line in ["token t1.", "t1", "[\"t1\"]", "x=t1,"] {
        assert_eq!(found(line), ["t1"], "{line}");
    }
    for line in ["authorization: Bearer old", "Token(\"old\")"] {
        assert_eq!(found(line), ["old"], "{line}");
    }
    for none in ["start1", "t12", "at1 t1x", "the old one", "old=1 new=2", "\"older\"", "\"old.example.com\"", "e30"] {
        assert_eq!(found(none), [""; 0], "{none}");
    }
    let durable = "durable-k3y é&\"";
    for wrapped in
        [durable.to_owned(), format!("x{durable}y"), format!("{durable:?}"), format!("{:?}", durable.as_bytes())]
    {
        assert_eq!(found(&wrapped), [durable], "{wrapped}");
    }
    for percent in ["durable-k3y+%C3%A9%26%22", "durable-k3y%20%C3%A9%26%22"] {
        assert_eq!(found(percent), [durable], "{percent}");
    }
    for before in ["", "i", "id", "id:"] {
        for after in ["", "!", "!!"] {
            let whole = format!("{before}{durable}{after}");
            for encoded in [BASE64_STANDARD_NO_PAD.encode(&whole), BASE64_URL_SAFE_NO_PAD.encode(&whole)] {
                assert_eq!(found(&encoded), [durable], "{whole}");
            }
        }
    }
    assert_eq!(found("the claims eyJzdWIiOiJtZSJ9 alone"), [jwt]);
    assert_eq!(found("made up: xs3cr3tx, czNjcjN0"), ["s3cr3t"]);
}
