//! A token file that is missing, half-written or something else: the token held is sent, one warning is logged, and it heals by itself.

#[path = "support/files.rs"]
mod files;
mod support;

use files::{Folder, file_error, jwt, looked, told};
use std::{fs, path::Path};
use support::{Logs, MINUTE, SECOND};
use tower_jwt_refresh::{TokenError, TokenProvider, TokenStatus, source::TokenFileError};

async fn secret(provider: &TokenProvider) -> String {
    provider.token().await.unwrap().expose_secret().to_owned()
}

// Scenario 64.
#[tokio::test]
async fn a_file_that_is_missing_at_first_is_read_as_soon_as_it_is_there_and_the_backoff_is_over() {
    let folder = Folder::new();
    let (provider, clock) = folder.provider();
    let error = provider.token().await.unwrap_err();
    assert!(matches!(file_error(&error), TokenFileError::Missing { .. }), "{error}");
    folder.rename("t1");
    let TokenError::Unavailable { retry_in, .. } = error else { panic!("{error}") };
    assert!(retry_in <= SECOND);
    clock.advance(SECOND);
    assert_eq!(secret(&provider).await, "t1");
}

// Scenario 64.
#[tokio::test]
async fn while_the_file_is_gone_the_last_token_is_sent_with_one_warning() {
    let (logs, _guard) = Logs::listen();
    let folder = Folder::new();
    folder.rename("s3cr3t");
    let (provider, clock) = folder.provider();
    assert_eq!(secret(&provider).await, "s3cr3t");
    for round in 1..=2 {
        folder.remove();
        for _ in 0..10 {
            let status = looked(&provider, &clock, MINUTE).await;
            assert!(matches!(status, TokenStatus::Failing { .. }), "{status:?}");
            assert_eq!(secret(&provider).await, "s3cr3t");
        }
        assert_eq!(folder.reads(), 11 * round);
        assert_eq!(logs.warnings().len(), round, "{:#?}", logs.warnings());
        assert!(logs.warnings()[round - 1].contains("there is no token file"), "{:#?}", logs.warnings());
        folder.rename("s3cr3t");
        assert_eq!(looked(&provider, &clock, MINUTE).await, TokenStatus::Fresh);
    }
    assert!(!logs.text().contains("s3cr3t"), "{}", logs.text());
}

// Scenario 64; googleapis/google-cloud-rust#5864.
#[tokio::test]
async fn a_half_written_file_takes_nothing_from_the_token_held_and_is_read_when_it_is_whole() {
    let (logs, _guard) = Logs::listen();
    let folder = Folder::new();
    let (provider, clock) = folder.provider();
    let (old, new) = (jwt(&clock, 1), jwt(&clock, 2));
    folder.write(&old);
    assert_eq!(secret(&provider).await, old);
    for cut in [0, 1, 5, 18, 30, new.len() / 2, new.len() - 20] {
        folder.write(&new[..cut]);
        let status = looked(&provider, &clock, MINUTE).await;
        assert!(matches!(status, TokenStatus::Failing { .. }), "{cut}: {status:?}");
        assert_eq!(secret(&provider).await, old);
    }
    assert_eq!(logs.warnings().len(), 1, "{:#?}", logs.warnings());
    folder.write(&new);
    assert_eq!(looked(&provider, &clock, MINUTE).await, TokenStatus::Fresh);
    assert_eq!(secret(&provider).await, new);
}

#[tokio::test]
async fn a_whole_token_that_looks_like_half_of_one_is_taken_when_the_file_is_a_minute_old() {
    // As when a key of 4096 bits gives way to one of 2048, and the header does not say so; and another kind of token.
    let changes: [fn(&str) -> String; 2] = [|jwt| jwt[..jwt.len() - 40].to_owned(), |_| "eyJrIjoiT0tTIn0=".to_owned()];
    for change in changes {
        let folder = Folder::new();
        let (provider, clock) = folder.provider();
        let (old, new) = (jwt(&clock, 1), change(&jwt(&clock, 2)));
        folder.rename(&old);
        assert_eq!(secret(&provider).await, old);
        folder.rename(&new);
        let status = looked(&provider, &clock, MINUTE).await;
        assert!(matches!(status, TokenStatus::Failing { .. }), "{status:?}");
        folder.age(MINUTE);
        assert_eq!(looked(&provider, &clock, MINUTE).await, TokenStatus::Fresh);
        assert_eq!(secret(&provider).await, new);
    }
}

#[tokio::test]
async fn a_whole_token_that_looks_like_half_of_one_is_taken_at_once_where_the_one_before_is_refused() {
    let folder = Folder::new();
    let (provider, clock) = folder.provider();
    let old = jwt(&clock, 1);
    folder.rename(&old);
    let held = provider.token().await.unwrap();
    folder.rename("eyJrIjoiT0tTIn0=");
    clock.advance(30 * SECOND);
    assert_eq!(provider.replace(&held).await.unwrap().expose_secret(), "eyJrIjoiT0tTIn0=");
}

/// What a caller is told of the file that `make` makes.
async fn trouble(make: impl FnOnce(&Path)) -> TokenError {
    let folder = Folder::new();
    make(&folder.path());
    let error = folder.provider().0.token().await.unwrap_err();
    let (text, path) = (told(&error), format!("{:?}", folder.path()));
    assert!(text.contains(&path), "{text}");
    assert!(!text.contains("s3cr3t"), "{text}");
    error
}

fn holding(content: impl AsRef<[u8]>) -> impl FnOnce(&Path) {
    move |path| fs::write(path, content).unwrap()
}

// Scenario 64.
#[tokio::test]
async fn what_is_no_token_file_is_an_error_that_names_the_path_and_quotes_nothing() {
    for (make, matches) in [
        (
            Box::new(holding("")) as Box<dyn FnOnce(&Path)>,
            (|it| matches!(it, TokenFileError::Empty { .. })) as fn(&_) -> bool,
        ),
        (Box::new(holding(" \n")), |it| matches!(it, TokenFileError::Empty { .. })),
        (Box::new(holding(b"s3cr3t\xff")), |it| matches!(it, TokenFileError::NotText { .. })),
        (Box::new(holding(r#"{"token":"s3cr3t"}"#)), |it| matches!(it, TokenFileError::Json { .. })),
        (Box::new(holding("s3cr3t\ns3cr3t")), |it| matches!(it, TokenFileError::Illegal { .. })),
        (Box::new(holding("s3cr3t\0")), |it| matches!(it, TokenFileError::Illegal { .. })),
        (Box::new(holding("s3cr3t".repeat(20_000))), |it| matches!(it, TokenFileError::TooLarge { .. })),
        (Box::new(|path| fs::create_dir(path).unwrap()), |it| {
            matches!(it, TokenFileError::NotAFile { kind: "a directory", .. })
        }),
    ] {
        let error = trouble(make).await;
        assert!(matches(file_error(&error)), "{}", told(&error));
        assert!(matches!(error, TokenError::Unavailable { .. }), "it heals by itself: {error}");
    }
}

// Scenario 104.
#[cfg(unix)]
#[test]
fn a_pipe_a_socket_and_an_endless_device_are_never_read() {
    use std::{
        os::unix::{fs::symlink, net::UnixListener},
        process::Command,
    };
    // A runtime that does not wait for its threads: if one hung on the pipe, the test would fail and not hang.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let [pipe, socket, device, below, nowhere] = runtime.block_on(async {
        [
            trouble(|path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success())).await,
            trouble(|path| drop(UnixListener::bind(path).unwrap())).await,
            trouble(|path| symlink("/dev/zero", path).unwrap()).await,
            trouble(|path| symlink("/dev/zero/token", path).unwrap()).await,
            trouble(|path| symlink("gone", path).unwrap()).await,
        ]
    });
    runtime.shutdown_background();
    for (error, wanted) in [(pipe, "a pipe"), (socket, "a socket"), (device, "a device")] {
        let found = file_error(&error);
        assert!(matches!(found, TokenFileError::NotAFile { kind, .. } if *kind == wanted), "{wanted}: {found}");
    }
    assert!(matches!(file_error(&below), TokenFileError::Read { .. }), "{}", told(&below));
    assert!(matches!(file_error(&nowhere), TokenFileError::Missing { .. }), "{}", told(&nowhere));
}
