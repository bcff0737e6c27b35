//! A folder with a token file in it, and those who write it: real files, read through a real provider whose clock is moved by hand.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;
use tower::ServiceBuilder;
use tower_jwt_refresh::{
    TokenError, TokenProvider, TokenRequest, TokenStatus,
    clock::{Clock, ManualClock},
    source::{TokenFile, TokenFileError},
};

/// An hour of the provider's clock, with the number in it.
pub fn jwt(clock: &ManualClock, number: u32) -> String {
    let exp = (clock.wall() + Duration::from_secs(3600)).duration_since(UNIX_EPOCH).unwrap().as_secs();
    let part = |json: String| BASE64_URL_SAFE_NO_PAD.encode(json);
    let (header, payload) = (part(r#"{"alg":"ES256"}"#.into()), part(format!(r#"{{"exp":{exp},"jti":{number}}}"#)));
    format!("{header}.{payload}.{}", "c2ln".repeat(21))
}

pub struct Folder {
    folder: TempDir,
    states: AtomicUsize,
    reads: Arc<AtomicUsize>,
}

impl Folder {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), states: AtomicUsize::new(1), reads: Arc::default() }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// Over what is there, as an editor does it.
    pub fn write(&self, content: impl AsRef<[u8]>) {
        write(&self.path(), content.as_ref());
    }

    /// A file beside it, renamed.
    pub fn rename(&self, content: &str) {
        let beside = self.folder.path().join("token.new");
        write(&beside, content.as_bytes());
        fs::rename(beside, self.path()).unwrap();
    }

    /// As the kubelet does it: `token` leads to `..data/token`, and `..data` to a folder of its own for each state, which the next one replaces at once.
    #[cfg(unix)]
    pub fn swap(&self, content: &str) {
        use std::os::unix::fs::symlink;
        let (root, data) = (self.folder.path(), self.folder.path().join("..data"));
        let before = fs::read_link(&data).ok();
        let state = format!("..2026_11_25_{}", self.states.fetch_add(1, Ordering::Relaxed));
        fs::create_dir(root.join(&state)).unwrap();
        write(&root.join(&state).join("token"), content.as_bytes());
        symlink(&state, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), &data).unwrap();
        match before {
            Some(before) => fs::remove_dir_all(root.join(before)).unwrap(),
            None => symlink("..data/token", self.path()).unwrap(),
        }
    }

    #[cfg(not(unix))]
    pub fn swap(&self, content: &str) {
        self.rename(content);
    }

    /// As if it had been written so long ago.
    pub fn age(&self, span: Duration) {
        age(&self.path(), span);
    }

    pub fn remove(&self) {
        fs::remove_file(self.path()).unwrap();
    }

    pub fn provider(&self) -> (TokenProvider, ManualClock) {
        self.provider_of(TokenFile::new(self.path()))
    }

    pub fn provider_of(&self, file: TokenFile) -> (TokenProvider, ManualClock) {
        let (clock, reads) = (ManualClock::new(), Arc::clone(&self.reads));
        let count = move |request: TokenRequest| {
            reads.fetch_add(1, Ordering::Relaxed);
            request
        };
        let source = ServiceBuilder::new().map_request(count).service(file);
        (TokenProvider::builder().clock(clock.clone()).build(source).unwrap(), clock)
    }

    /// How often it was read.
    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }
}

fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    // Not just now: what is new is looked at twice, with a pause.
    age(path, Duration::from_secs(10));
}

fn age(path: &Path, age: Duration) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

/// Lets so much time pass, and the file be read for the caller who then finds that a look is due.
pub async fn looked(provider: &TokenProvider, clock: &ManualClock, span: Duration) -> TokenStatus {
    let mut status = provider.subscribe();
    clock.advance(span);
    let _ = provider.try_token();
    if matches!(*status.borrow_and_update(), TokenStatus::Failing { .. }) {
        // The next failure tells anew when the next look is.
        status.changed().await.unwrap();
    }
    status.wait_for(|told| *told != TokenStatus::Stale).await.unwrap().clone()
}

/// What is wrong with the file, by what a caller is told.
pub fn file_error(error: &TokenError) -> &TokenFileError {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |error| (*error).source())
        .find_map(|error| error.downcast_ref())
        .expect("the file is to blame")
}

/// All that an error says, its causes with it.
pub fn told(error: &TokenError) -> String {
    std::iter::successors(Some(error as &dyn Error), |error| (*error).source())
        .map(|error| format!("{error} {error:?}\n"))
        .collect()
}
