//! A store in a file: whole or not at all, for its owner alone, and locked while its holder lives.
#![cfg(unix)]

mod support;

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};
use support::whole_run;
use tempfile::TempDir;
use tower_jwt_refresh::store::{FileStore, StoreError, StoreLock, TokenStore};

const AT_ONCE: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(60);

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        whole_run::listen();
        Self(tempfile::tempdir().unwrap())
    }

    /// In a directory that is not there yet.
    fn path(&self) -> PathBuf {
        self.0.path().join("state/token")
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.0.path().join("state").join(name)
    }

    fn store(&self) -> FileStore {
        FileStore::new(self.path())
    }

    /// A store that something was saved to.
    async fn used(&self) -> FileStore {
        let store = self.store();
        save(&store, b"first").await;
        store
    }
}

async fn lock(store: &FileStore) -> Box<dyn StoreLock> {
    store.lock(LONG).await.unwrap()
}

async fn save(store: &FileStore, value: &[u8]) {
    let mut lock = lock(store).await;
    lock.save(value).await.unwrap();
    lock.unlock().await;
}

async fn load(store: &FileStore) -> Option<Vec<u8>> {
    store.load().await.unwrap().value().map(<[u8]>::to_vec)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn said(error: &StoreError) -> String {
    let StoreError::Unusable(cause) = error else { panic!("{error:?}") };
    whole_run::print(&format!("{error:?}"));
    cause.to_string()
}

async fn unusable(store: &FileStore) -> String {
    let found = said(&store.load().await.unwrap_err());
    assert_eq!(said(&store.lock(AT_ONCE).await.err().unwrap()), found);
    found
}

#[tokio::test]
async fn what_was_saved_is_loaded_and_files_and_directories_are_for_their_owner_alone() {
    let folder = Folder::new();
    let store = folder.store();
    assert_eq!(load(&store).await, None);
    assert!(!folder.path().parent().unwrap().exists(), "a look makes nothing");
    for value in [&b"first"[..], b"", &[0; 100_000], b"last"] {
        save(&store, value).await;
        assert_eq!(load(&store).await.as_deref(), Some(value));
    }
    assert_eq!(load(&folder.store()).await.as_deref(), Some(&b"last"[..]));
    assert_eq!(mode(folder.path().parent().unwrap()), 0o700);
    for name in ["token", "token.lock"] {
        assert_eq!(mode(&folder.beside(name)), 0o600, "{name}");
    }
    assert!(!folder.beside("token.new").exists());
    assert!(!format!("{store:?}").contains("last"));
}

#[tokio::test]
async fn one_at_a_time_has_the_lock_and_who_waits_gets_it_next() {
    let folder = Folder::new();
    let (one, two) = (folder.store(), folder.store());
    for (holder, other) in [(&one, &two), (&one, &one.clone())] {
        let held = lock(holder).await;
        assert!(held.is_held());
        assert!(matches!(other.lock(AT_ONCE).await, Err(StoreError::Busy)));
        assert_eq!(load(other).await, None, "to look needs no lock");
        let waiting = tokio::spawn({
            let other = other.clone();
            async move { lock(&other).await.is_held() }
        });
        held.unlock().await;
        assert!(waiting.await.unwrap());
        drop(lock(holder).await);
        // A program that another test starts has the locked file, too, until it runs.
        drop(lock(other).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_lock_ends_at_its_deadline() {
    let folder = Folder::new();
    let _held = lock(&folder.store()).await;
    let begun = tokio::time::Instant::now();
    assert!(matches!(folder.store().lock(Duration::from_secs(20)).await, Err(StoreError::Busy)));
    assert!(begun.elapsed() >= Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_wait_that_is_dropped_leaves_nothing_locked() {
    let folder = Folder::new();
    let held = lock(&folder.store()).await;
    let store = folder.store();
    for polls in 0..8 {
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { store.lock(LONG).await.map(drop) }
        });
        for _ in 0..polls {
            tokio::task::yield_now().await;
        }
        waiting.abort();
    }
    drop(held);
    lock(&folder.store()).await.unlock().await;
}

#[tokio::test]
async fn what_a_killed_process_left_beside_it_harms_nobody() {
    let folder = Folder::new();
    let store = folder.used().await;
    for (left, mode) in [("half of a val", 0o600), ("", 0o644)] {
        fs::write(folder.beside("token.new"), left).unwrap();
        chmod(&folder.beside("token.new"), mode);
        assert_eq!(load(&store).await.as_deref(), Some(&b"first"[..]));
        save(&store, b"first").await;
        assert!(!folder.beside("token.new").exists());
    }
    // A link there leads nowhere else.
    let elsewhere = folder.0.path().join("elsewhere");
    fs::write(&elsewhere, "precious").unwrap();
    symlink(&elsewhere, folder.beside("token.new")).unwrap();
    save(&store, b"second").await;
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "precious");
    assert_eq!(load(&store).await.as_deref(), Some(&b"second"[..]));
}

#[tokio::test]
async fn a_save_leaves_whoever_reads_the_old_file_with_the_old_value() {
    let folder = Folder::new();
    let store = folder.used().await;
    let before = fs::metadata(folder.path()).unwrap().ino();
    let reading = fs::File::open(folder.path()).unwrap();
    save(&store, b"second").await;
    assert_ne!(fs::metadata(folder.path()).unwrap().ino(), before);
    assert_eq!(std::io::read_to_string(reading).unwrap(), "first");
}

#[tokio::test]
async fn a_save_under_a_lock_whose_file_was_deleted_is_refused() {
    let folder = Folder::new();
    let store = folder.used().await;
    let mut held = lock(&store).await;
    fs::remove_file(folder.beside("token.lock")).unwrap();
    // Another one can lock the new file, so both would write.
    let mut other = lock(&folder.store()).await;
    assert!(matches!(held.save(b"late").await, Err(StoreError::LockLost)));
    assert_eq!(load(&store).await.as_deref(), Some(&b"first"[..]));
    other.save(b"right").await.unwrap();
    drop(held);
    assert!(matches!(store.lock(AT_ONCE).await, Err(StoreError::Busy)), "the other one's is untouched");
}

#[tokio::test]
async fn what_is_open_to_others_is_refused_until_it_is_closed() {
    let folder = Folder::new();
    let store = folder.used().await;
    for (name, bad) in [("token", 0o640), ("token", 0o604), ("token", 0o602)] {
        chmod(&folder.beside(name), bad);
        let said = said(&store.load().await.unwrap_err());
        assert!(said.contains(&format!("(mode {bad:o})")) && said.contains("chmod 600"), "{said}");
        chmod(&folder.beside(name), 0o600);
    }
    chmod(&folder.beside("token.lock"), 0o666);
    assert!(said(&store.lock(AT_ONCE).await.err().unwrap()).contains("chmod 600"));
    chmod(&folder.beside("token.lock"), 0o600);
    let directory = folder.0.path().join("state");
    for bad in [0o770, 0o707, 0o777, 0o720] {
        chmod(&directory, bad);
        let said = unusable(&store).await;
        assert!(said.contains(&format!("(mode {bad:o})")) && said.contains("chmod go-w"), "{said}");
    }
    for good in [0o700, 0o755, 0o1777] {
        chmod(&directory, good);
        assert_eq!(load(&store).await.as_deref(), Some(&b"first"[..]));
        save(&store, b"first").await;
    }
}

#[tokio::test]
async fn a_directory_that_is_opened_while_the_lock_is_held_stops_the_save() {
    let folder = Folder::new();
    let store = folder.used().await;
    let mut held = lock(&store).await;
    chmod(&folder.0.path().join("state"), 0o777);
    assert!(said(&held.save(b"second").await.unwrap_err()).contains("chmod go-w"));
    assert_eq!(fs::read(folder.path()).unwrap(), b"first");
}

#[tokio::test]
async fn what_belongs_to_another_user_is_refused() {
    // Only root can give a file away.
    if fs::metadata("/proc/self").map_or(1, |own| own.uid()) != 0 {
        return;
    }
    let folder = Folder::new();
    let store = folder.used().await;
    std::os::unix::fs::chown(folder.path(), Some(65534), None).unwrap();
    assert!(said(&store.load().await.unwrap_err()).contains("belongs to user 65534, and this is user 0"));
    std::os::unix::fs::chown(folder.path(), Some(0), None).unwrap();
    std::os::unix::fs::chown(folder.beside("token.lock"), Some(65534), None).unwrap();
    assert!(said(&store.lock(AT_ONCE).await.err().unwrap()).contains("belongs to user 65534"));
    std::os::unix::fs::chown(folder.0.path().join("state"), Some(65534), None).unwrap();
    assert!(unusable(&store).await.contains("belongs to user 65534"));
}

#[tokio::test]
async fn links_pipes_and_directories_are_not_followed_waited_for_or_written_to() {
    let folder = Folder::new();
    let store = folder.used().await;
    let elsewhere = folder.0.path().join("elsewhere");
    fs::write(&elsewhere, "precious").unwrap();
    chmod(&elsewhere, 0o600);
    for name in ["token", "token.lock"] {
        let look = async || match name {
            "token" => store.load().await.map(drop).unwrap_err(),
            _ => store.lock(AT_ONCE).await.map(drop).unwrap_err(),
        };
        let path = folder.beside(name);
        fs::remove_file(&path).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(said(&look().await).contains("no regular file"), "{name}: a link");
        fs::remove_file(&path).unwrap();
        symlink(folder.0.path().join("nowhere"), &path).unwrap();
        assert!(said(&look().await).contains("no regular file"), "{name}: a link to nowhere");
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&path).status().unwrap().success());
        assert!(said(&look().await).contains("no regular file"), "{name}: a pipe");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(said(&look().await).contains("no regular file"), "{name}: a directory");
        fs::remove_dir(&path).unwrap();
        save(&store, b"again").await;
    }
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "precious");
    assert!(!folder.0.path().join("nowhere").exists());
}

#[tokio::test]
async fn a_file_that_is_no_token_by_its_size_is_not_read() {
    let folder = Folder::new();
    let store = folder.used().await;
    fs::File::options().write(true).open(folder.path()).unwrap().set_len(1 << 40).unwrap();
    assert!(said(&store.load().await.unwrap_err()).contains("no token"));
}

#[tokio::test]
async fn what_the_system_refuses_is_an_error_that_names_the_file() {
    let folder = Folder::new();
    // Its directory is a file.
    let store = FileStore::new(folder.0.path().join("file/token"));
    fs::write(folder.0.path().join("file"), "").unwrap();
    for error in [store.load().await.map(drop).unwrap_err(), store.lock(AT_ONCE).await.map(drop).unwrap_err()] {
        let StoreError::Unavailable(cause) = error else { panic!("{error:?}") };
        assert!(cause.to_string().contains("file"), "{cause}");
    }
    // A token that nothing can be renamed over.
    let store = folder.used().await;
    let mut held = lock(&store).await;
    fs::remove_file(folder.path()).unwrap();
    fs::create_dir_all(folder.path().join("full")).unwrap();
    assert!(matches!(held.save(b"second").await, Err(StoreError::Unavailable(_))));
}

#[test]
fn a_relative_path_is_taken_from_where_the_process_was() {
    let store = FileStore::new("token");
    assert_eq!(store.path(), std::env::current_dir().unwrap().join("token"));
}
