//! Opening what is a regular file, and nothing else.

use super::read::Failed;
use std::{
    fs::{File, FileType, Metadata},
    io,
    path::Path,
};

pub(super) fn regular(path: &Path) -> Result<(File, Metadata), Failed> {
    // Before it is opened: to open a pipe waits for its writer, and to open a device may set something off.
    check(&std::fs::metadata(path)?)?;
    let file = open(path)?;
    let metadata = file.metadata()?;
    // And after: it may have been replaced in between.
    check(&metadata)?;
    Ok((file, metadata))
}

/// Without a wait, should there be a pipe by now: it would take a thread, and the turn of all who come after. Of a regular file that somebody holds a lease on (Samba does)
/// this makes an error, and a later look finds it free.
#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().read(true).custom_flags(NONBLOCK).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// `O_NONBLOCK`, which std does not name. A system that is not listed here waits for the pipe's writer.
#[cfg(unix)]
const NONBLOCK: i32 = if cfg!(all(
    any(target_os = "linux", target_os = "android"),
    not(any(
        target_arch = "mips",
        target_arch = "mips32r6",
        target_arch = "mips64",
        target_arch = "mips64r6",
        target_arch = "sparc",
        target_arch = "sparc64"
    ))
)) {
    0o4000
} else if cfg!(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly"
)) {
    0o4
} else {
    0
};

fn check(metadata: &Metadata) -> Result<(), Failed> {
    if metadata.is_file() { Ok(()) } else { Err(Failed::NotAFile(kind(metadata.file_type()))) }
}

fn kind(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    if kind.is_dir() { "a directory" } else { "no regular file" }
}

#[cfg(all(test, any(target_os = "linux", target_vendor = "apple")))]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_pipe_that_takes_the_files_place_after_the_first_look_is_opened_without_a_wait_for_its_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let (opened, says) = std::sync::mpsc::channel();
        // Not joined: if it waits for a writer, the test fails and does not hang.
        std::thread::spawn({
            let path = path.clone();
            move || opened.send(check(&open(&path).unwrap().metadata().unwrap()))
        });
        let checked = says.recv_timeout(Duration::from_secs(10)).expect("nobody writes, and it is open");
        assert!(matches!(checked, Err(Failed::NotAFile("a pipe"))));
    }
}
