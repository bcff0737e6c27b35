//! Real processes on one file, and a server that takes a refresh token that is shown twice for theft.
#![cfg(unix)]

#[path = "support/family.rs"]
mod family;
#[path = "support/oauth2.rs"]
mod oauth2;
#[path = "support/process.rs"]
mod processes;
#[path = "support/exchange.rs"]
mod server;
mod support;

use family::Family;
use processes::{Process, end_with_the_test, say};
use std::{
    env,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use support::whole_run;
use tokio::runtime::{Builder, Runtime};
use tower::Layer;
use tower_jwt_refresh::{
    Token, TokenProvider,
    source::oauth2::{ClientAuth, OAuth2},
    store::{BoxFuture, FileStore, Loaded, StoreError, StoreLayer, StoreLock, TokenStore},
};

const LONG: Duration = Duration::from_secs(60);

fn start(role: &str, path: &Path, url: &str) -> Process {
    Process::start(&[("STORE_ROLE", role), ("STORE_PATH", path.to_str().unwrap()), ("STORE_URL", url)])
}

#[test]
#[ignore = "a process of the other tests"]
fn process() {
    let Ok(role) = env::var("STORE_ROLE") else { return };
    end_with_the_test();
    let path = PathBuf::from(env::var_os("STORE_PATH").unwrap());
    let url = env::var("STORE_URL").unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match role.split_once(' ') {
            None if role == "save" => save_for_ever(FileStore::new(path)).await,
            Some(("refresh", times)) => {
                let provider = provider(&url, FileStore::new(path));
                for _ in 0..times.parse().unwrap() {
                    let token = provider.refresh().await.unwrap();
                    say(token.expose_secret());
                }
            }
            Some(("halt", step)) => {
                let halt = Halt { at: step.parse().unwrap(), steps: Arc::default() };
                let store = Halting { store: FileStore::new(path), halt };
                say(provider(&url, store).token().await.unwrap().expose_secret());
            }
            _ => panic!("no such role: {role}"),
        }
    });
}

fn provider(url: &str, store: impl TokenStore) -> TokenProvider {
    whole_run::listen();
    let source = OAuth2::refresh_token(url, ClientAuth::public("id"), "r1").build().unwrap();
    // Two refreshes may follow each other at once: nobody is to wait here.
    TokenProvider::builder().min_interval(Duration::from_millis(1)).build(StoreLayer::new(store).layer(source)).unwrap()
}

/// Values of one letter each.
async fn save_for_ever(store: FileStore) {
    for letter in (b'a'..=b'z').cycle() {
        let mut lock = store.lock(LONG).await.unwrap();
        lock.save(&[letter; 50_000]).await.unwrap();
        lock.unlock().await;
        say("saved");
    }
}

/// Stands still at one of its steps, for good, once it has said so.
#[derive(Clone)]
struct Halt {
    at: usize,
    steps: Arc<AtomicUsize>,
}

impl Halt {
    async fn step(&self, name: &str) {
        if self.steps.fetch_add(1, Ordering::SeqCst) == self.at {
            say(name);
            std::future::pending::<()>().await;
        }
    }
}

struct Halting {
    store: FileStore,
    halt: Halt,
}

impl TokenStore for Halting {
    fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        Box::pin(async {
            self.halt.step("loading").await;
            let loaded = self.store.load().await;
            self.halt.step("loaded").await;
            loaded
        })
    }

    fn lock(&self, wait: Duration) -> BoxFuture<'_, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(async move {
            self.halt.step("locking").await;
            let lock = HaltingLock { lock: self.store.lock(wait).await?, halt: self.halt.clone() };
            self.halt.step("locked").await;
            Ok(Box::new(lock) as Box<dyn StoreLock>)
        })
    }
}

struct HaltingLock {
    lock: Box<dyn StoreLock>,
    halt: Halt,
}

impl StoreLock for HaltingLock {
    fn is_held(&self) -> bool {
        self.lock.is_held()
    }

    fn save<'a>(&'a mut self, value: &'a [u8]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async {
            self.halt.step("saving").await;
            let saved = self.lock.save(value).await;
            self.halt.step("saved").await;
            saved
        })
    }

    fn unlock(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.halt.step("unlocking").await;
            self.lock.unlock().await;
            self.halt.step("unlocked").await;
        })
    }
}

/// Drives the server while the test waits for processes.
fn serving() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

// Scenario 128.
#[test]
fn eight_processes_on_one_file_never_show_a_refresh_token_twice() {
    let (folder, serving) = (tempfile::tempdir().unwrap(), serving());
    let (server, family) = serving.block_on(Family::strict());
    let path = folder.path().join("token");
    let processes: Vec<_> = (0..8).map(|_| start("refresh 25", &path, &server.url())).collect();
    for process in processes {
        process.ends_well();
    }
    assert_eq!(family.refused(), 0);
    let granted = family.granted();
    assert!((25..=8 * 25).contains(&granted), "{granted}");
    println!("8 processes x 25 refreshes: {granted} fetches");
}

// Scenario 128.
#[test]
fn a_process_that_is_killed_at_any_step_takes_nothing_with_it_but_an_answer_that_it_has_not_saved() {
    let serving = serving();
    let mut halted = Vec::new();
    for at in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let (server, family) = serving.block_on(Family::with_grace());
        let path = folder.path().join("token");
        // Of before, and due.
        let before = Token::opaque("t0").unwrap().with_expires_in(Duration::ZERO);
        serving.block_on(StoreLayer::new(FileStore::new(&path)).set(before, Some("r1"))).unwrap();
        let mut process = start(&format!("halt {at}"), &path, &server.url());
        let said = process.says().unwrap();
        process.kill();
        let mut next = start("refresh 3", &path, &server.url());
        let first = next.says().unwrap();
        next.ends_well();
        assert_eq!(family.refused(), 0, "killed while {said}");
        assert_eq!(family.by_grace(), usize::from(said == "saving"), "killed while {said}");
        // What was saved is adopted, and not got again.
        assert_eq!(first, if said == "saving" { "t2" } else { "t1" }, "killed while {said}");
        if said == "t1" {
            break;
        }
        halted.push(said);
    }
    let [look, lock] = [["loading", "loaded"], ["locking", "locked"]];
    let [save, unlock] = [["saving", "saved"], ["unlocking", "unlocked"]];
    assert_eq!(halted, [look, lock, look, save, unlock].concat());
}

// Scenario 128.
#[test]
fn a_process_that_is_killed_at_any_moment_of_a_save_leaves_a_whole_value_and_no_lock() {
    let (folder, runtime) = (tempfile::tempdir().unwrap(), serving());
    let path = folder.path().join("token");
    let store = FileStore::new(&path);
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..40 {
        let mut process = start("save", &path, "");
        for _ in 0..random.usize(1..4) {
            process.says().unwrap();
        }
        // Somewhere within the next save.
        for _ in 0..random.usize(0..200_000) {
            std::hint::spin_loop();
        }
        process.kill();
        let lock = runtime.block_on(store.lock(Duration::ZERO)).map(drop);
        assert!(lock.is_ok(), "{lock:?}");
        let loaded = runtime.block_on(store.load()).unwrap();
        let value = loaded.value().unwrap();
        assert_eq!(value.len(), 50_000);
        assert!(value.iter().all(|letter| *letter == value[0]));
    }
}

// Scenario 128.
#[test]
fn processes_that_are_killed_at_random_never_cost_the_login() {
    let (folder, serving) = (tempfile::tempdir().unwrap(), serving());
    let (server, family) = serving.block_on(Family::with_grace());
    let path = folder.path().join("token");
    let start = || start("refresh 1000000", &path, &server.url());
    let mut processes: Vec<_> = (0..4).map(|_| start()).collect();
    let mut random = fastrand::Rng::with_seed(2);
    for kill in 0..30 {
        let process = random.usize(0..processes.len());
        for _ in 0..random.usize(1..5) {
            assert!(processes[process].says().is_some(), "one has failed after {kill} kills");
        }
        for _ in 0..random.usize(0..100_000) {
            std::hint::spin_loop();
        }
        std::mem::replace(&mut processes[process], start()).kill();
    }
    for mut process in processes {
        assert!(process.says().is_some());
        process.kill();
    }
    assert_eq!(family.refused(), 0);
    println!("34 kills: {} fetches, {} of them by the server's grace", family.granted(), family.by_grace());
    assert!(family.by_grace() <= 34);
}
