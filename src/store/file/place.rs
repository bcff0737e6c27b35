//! Three files in a directory: what is asked of them, and what is done with them. All of it blocks.

use super::StoreError;
use crate::BoxError;
use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
    process::geteuid,
};
use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// More than two tokens of 64 KiB can need.
const LARGEST: u64 = 1024 * 1024;

pub(super) struct Place {
    path: PathBuf,
    lock: PathBuf,
    new: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("cannot {what} `{}`", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("`{}` belongs to user {owner}, and this is user {us}: each user needs a file of their own", path.display())]
    Owner { path: PathBuf, owner: u32, us: u32 },
    #[error("`{}` is open to other users (mode {mode:o}): close it by `chmod 600`, and withdraw what it holds if anybody may have read it", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("other users can write to the directory `{}` (mode {mode:o}): close it by `chmod go-w`, or take one of its own for the store", path.display())]
    Directory { path: PathBuf, mode: u32 },
    #[error("`{}` is no regular file, and links are not followed", path.display())]
    NotAFile { path: PathBuf },
    #[error("`{}` has over {LARGEST} bytes: that is no token", path.display())]
    TooLarge { path: PathBuf },
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Io { .. } => Self::Unavailable(trouble.into()),
            _ => Self::Unusable(BoxError::from(trouble)),
        }
    }
}

impl Place {
    pub(super) fn new(path: PathBuf) -> Self {
        let beside = |suffix: &str| {
            let mut name = path.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        Self { lock: beside(".lock"), new: beside(".new"), path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    pub(super) fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let directory = self.directory();
        match fs::metadata(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => check_directory(directory, &found.map_err(trouble("look at", directory))?)?,
        }
        let mut file = match open(OpenOptions::new().read(true), &self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(unopened("read", &self.path))?,
        };
        let metadata = file.metadata().map_err(trouble("look at", &self.path))?;
        check_file(&self.path, &metadata)?;
        let too_large = || Trouble::TooLarge { path: self.path.clone() };
        let length = usize::try_from(metadata.len().min(LARGEST + 1)).expect("a megabyte");
        // With room for what it may have grown by, so that growing leaves no copy behind; a file that is replaced by rename does not grow.
        let mut value = Zeroizing::new(Vec::with_capacity(length + 1));
        (&mut file).take(LARGEST + 1).read_to_end(&mut value).map_err(trouble("read", &self.path))?;
        if value.len() as u64 > LARGEST {
            return Err(too_large().into());
        }
        Ok(Some(value))
    }

    /// The file that is locked while it is open, unless somebody else has it.
    pub(super) fn try_lock(&self) -> Result<Option<File>, StoreError> {
        self.prepare()?;
        let opened = open(OpenOptions::new().read(true).write(true).create(true).truncate(false), &self.lock);
        let file = opened.map_err(unopened("open", &self.lock))?;
        check_file(&self.lock, &file.metadata().map_err(trouble("look at", &self.lock))?)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
            Err(error) => return Err(trouble("lock", &self.lock)(error.into()).into()),
        }
        // Somebody may have deleted it since it was opened, and locked another one.
        Ok(self.is_the_lock(&file)?.then_some(file))
    }

    fn is_the_lock(&self, file: &File) -> Result<bool, StoreError> {
        let held = file.metadata().map_err(trouble("look at", &self.lock))?;
        match fs::symlink_metadata(&self.lock) {
            Ok(named) => Ok((held.dev(), held.ino()) == (named.dev(), named.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(trouble("look at", &self.lock)(error).into()),
        }
    }

    fn prepare(&self) -> Result<(), StoreError> {
        let directory = self.directory();
        let found = match fs::metadata(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Another process may make it at the same time, which is as good.
                DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(trouble("make", directory))?;
                fs::metadata(directory)
            }
            found => found,
        };
        Ok(check_directory(directory, &found.map_err(trouble("look at", directory))?)?)
    }

    pub(super) fn replace(&self, lock: &File, value: &[u8]) -> Result<(), StoreError> {
        self.prepare()?;
        if !self.is_the_lock(lock)? {
            return Err(StoreError::LockLost);
        }
        match fs::remove_file(&self.new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(trouble("remove", &self.new)(error).into());
            }
            _ => {}
        }
        let written = open(OpenOptions::new().write(true).create_new(true), &self.new).and_then(|mut file| {
            file.write_all(value)?;
            file.sync_all()
        });
        written.map_err(trouble("write", &self.new))?;
        fs::rename(&self.new, &self.path).map_err(trouble("replace", &self.path))?;
        let directory = self.directory();
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(trouble("sync", directory))?;
        Ok(())
    }
}

/// For its owner alone if it is made. Without a wait, should there be a pipe.
fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.mode(0o600).custom_flags(flags.bits().cast_signed()).open(path)
}

fn check_directory(path: &Path, directory: &Metadata) -> Result<(), Trouble> {
    const STICKY: u32 = 0o1000;
    let us = geteuid().as_raw();
    if directory.uid() != us && directory.uid() != 0 {
        return Err(Trouble::Owner { path: path.to_owned(), owner: directory.uid(), us });
    }
    if directory.mode() & 0o022 != 0 && directory.mode() & STICKY == 0 {
        return Err(Trouble::Directory { path: path.to_owned(), mode: directory.mode() & 0o7777 });
    }
    Ok(())
}

fn check_file(path: &Path, file: &Metadata) -> Result<(), Trouble> {
    let us = geteuid().as_raw();
    if !file.is_file() {
        return Err(Trouble::NotAFile { path: path.to_owned() });
    }
    if file.uid() != us {
        return Err(Trouble::Owner { path: path.to_owned(), owner: file.uid(), us });
    }
    if file.mode() & 0o077 != 0 {
        return Err(Trouble::Open { path: path.to_owned(), mode: file.mode() & 0o7777 });
    }
    Ok(())
}

fn trouble(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Trouble {
    move |error| Trouble::Io { what, path: path.to_owned(), error }
}

/// The system's word for a link that was not followed, for a directory, and for a socket.
fn unopened(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Trouble {
    move |error| match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::LOOP | Errno::MLINK | Errno::ISDIR | Errno::NXIO) => Trouble::NotAFile { path: path.to_owned() },
        _ => trouble(what, path)(error),
    }
}
