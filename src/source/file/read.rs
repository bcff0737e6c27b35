//! One look at a file: blocking, bounded, into memory that is wiped.

use super::{TokenFileError, open};
use std::{
    fs::Metadata,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

/// No token is longer.
pub(super) const LIMIT: usize = 64 * 1024;

/// What was written less than this ago may be written on.
const YOUNG: Duration = Duration::from_millis(100);

/// What was in the file at one look.
pub(super) struct Read {
    buffer: Zeroizing<Vec<u8>>,
    length: usize,
    stamp: Stamp,
    /// Since it was written. None: unknown, or by a clock that is ahead of ours, and so says nothing.
    age: Option<Duration>,
    /// No more and no less than the system says is there.
    whole: bool,
    /// Nor did it change meanwhile.
    steady: bool,
}

/// By what one sees that a file was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { length: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl Read {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    /// Nobody writes it now, so far as one look can tell.
    pub(super) fn is_settled(&self) -> bool {
        self.steady && self.age.is_none_or(|age| age >= YOUNG)
    }

    /// By a clock that may be a little ahead of ours.
    pub(super) fn was_written_within(&self, span: Duration, now: SystemTime) -> bool {
        let apart = |at| now.duration_since(at).unwrap_or_else(|ahead| ahead.duration());
        self.stamp.modified.is_some_and(|at| apart(at) < span)
    }

    pub(super) fn agrees_with(&self, before: &Self) -> bool {
        self.steady && self.stamp == before.stamp && self.repeats(before)
    }

    /// The same again, whatever the system says of when it was written.
    pub(super) fn repeats(&self, before: &Self) -> bool {
        self.whole && self.bytes() == before.bytes()
    }
}

/// Why it could not be read.
#[derive(Debug)]
pub(super) enum Failed {
    Io(io::Error),
    NotAFile(&'static str),
    TooLarge,
    /// It does not stand still.
    Torn,
}

impl Failed {
    pub(super) fn at(self, path: &Arc<Path>) -> TokenFileError {
        let path = Arc::clone(path);
        match self {
            Self::NotAFile(kind) => TokenFileError::NotAFile { path, kind },
            Self::TooLarge => TokenFileError::TooLarge { path, limit: LIMIT },
            Self::Torn => TokenFileError::Torn { path },
            Self::Io(error) => match error.kind() {
                io::ErrorKind::NotFound => TokenFileError::Missing { path, error },
                io::ErrorKind::PermissionDenied => TokenFileError::Denied { path, error },
                _ => TokenFileError::Read { path, error },
            },
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub(super) fn read(path: &Path) -> Result<Read, Failed> {
    let (mut file, before) = open::regular(path)?;
    // Of its final size from the start, so that no growth leaves a copy behind; one byte more shows that there is more.
    let mut buffer = Zeroizing::new(vec![0; LIMIT + 1]);
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    if length > LIMIT {
        return Err(Failed::TooLarge);
    }
    let (before, stamp) = (Stamp::of(&before), Stamp::of(&file.metadata()?));
    // A file that the system makes up as it is read says that it has no length.
    let whole = stamp.length == 0 || u64::try_from(length).is_ok_and(|length| length == stamp.length);
    let age = stamp.modified.and_then(|at| at.elapsed().ok());
    Ok(Read { buffer, length, stamp, age, whole, steady: before == stamp && whole })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::fs;

    /// What somebody wrote so long before it was looked at.
    pub(in super::super) fn look(bytes: &[u8], age: Duration, steady: bool) -> Read {
        let stamp = Stamp { length: bytes.len() as u64, modified: Some(SystemTime::now() - age) };
        Read { buffer: Zeroizing::new(bytes.to_vec()), length: bytes.len(), stamp, age: Some(age), whole: true, steady }
    }

    impl Read {
        /// Another look at it, unchanged.
        pub(in super::super) fn again(&self) -> Self {
            Self { buffer: self.buffer.clone(), ..*self }
        }
    }

    #[test]
    fn a_file_is_settled_once_it_is_old_enough_and_did_not_change_while_it_was_read() {
        let hour = Duration::from_secs(3600);
        assert!(look(b"t", hour, true).is_settled());
        assert!(!look(b"t", hour, false).is_settled());
        assert!(!look(b"t", YOUNG / 2, true).is_settled());
        assert!(Read { age: None, ..look(b"t", Duration::ZERO, true) }.is_settled());
    }

    #[test]
    fn when_a_file_was_written_counts_either_way_and_is_never_where_the_system_does_not_say() {
        let (now, second) = (SystemTime::now(), Duration::from_secs(1));
        let within = |modified| {
            let mut read = look(b"t", Duration::ZERO, true);
            read.stamp.modified = modified;
            read.was_written_within(2 * second, now)
        };
        assert!(within(Some(now - second)) && within(Some(now + second)));
        assert!(!within(Some(now - 2 * second)) && !within(Some(now + 2 * second)) && !within(None));
    }

    #[test]
    fn two_looks_agree_if_nothing_at_all_has_changed() {
        let first = look(b"token", Duration::ZERO, true);
        let again = |change: fn(&mut Read)| {
            let mut next = first.again();
            change(&mut next);
            next.agrees_with(&first)
        };
        assert!(again(|_| {}));
        assert!(!again(|next| next.buffer[0] = b'T'));
        assert!(!again(|next| next.length = 3));
        assert!(!again(|next| next.stamp.modified = None));
        assert!(!again(|next| next.steady = false));
    }

    #[test]
    fn a_look_repeats_another_if_all_that_is_there_is_the_same_bytes() {
        let first = look(b"token", Duration::ZERO, true);
        let again = |change: fn(&mut Read)| {
            let mut next = first.again();
            change(&mut next);
            next.repeats(&first)
        };
        assert!(again(|next| (next.stamp.modified, next.steady) = (None, false)));
        assert!(!again(|next| next.buffer[0] = b'T'));
        assert!(!again(|next| next.length = 3));
        assert!(!again(|next| next.whole = false));
    }

    #[test]
    fn what_the_system_says_is_told_apart() {
        let path: Arc<Path> = Path::new("/var/run/token").into();
        let error = |kind: io::ErrorKind| Failed::Io(kind.into()).at(&path);
        assert!(matches!(error(io::ErrorKind::NotFound), TokenFileError::Missing { .. }));
        assert!(matches!(error(io::ErrorKind::PermissionDenied), TokenFileError::Denied { .. }));
        assert!(matches!(error(io::ErrorKind::NotADirectory), TokenFileError::Read { .. }));
    }

    #[test]
    fn a_file_is_read_to_its_limit_and_no_further() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (length, taken) in [(0, true), (1, true), (LIMIT, true), (LIMIT + 1, false), (LIMIT * 3, false)] {
            fs::write(&path, vec![b'a'; length]).unwrap();
            match read(&path) {
                Ok(read) => assert!(taken && read.bytes().len() == length && read.steady, "{length}"),
                Err(Failed::TooLarge) => assert!(!taken, "{length}"),
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    #[test]
    fn the_age_of_a_file_is_told_unless_its_time_is_ahead_of_ours() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
        file.as_file().set_modified(now - hour).unwrap();
        assert!(read(file.path()).unwrap().age >= Some(hour));
        file.as_file().set_modified(now + hour).unwrap();
        assert_eq!(read(file.path()).unwrap().age, None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_the_system_makes_up_is_read_though_it_says_that_it_is_empty() {
        let read = read(Path::new("/proc/self/status")).unwrap();
        assert!(read.steady && read.bytes().starts_with(b"Name:"));
    }
}
