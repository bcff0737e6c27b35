//! OAuth's refresh token under a store: whose is shown, and which is kept.

#[path = "support/oauth2.rs"]
mod oauth2;
#[path = "support/exchange.rs"]
mod server;
#[path = "support/store.rs"]
mod store;
mod support;

use oauth2::{Asked, Kept, oauth2_error, refreshing, rotating, shown, with_refresh_token};
use server::{Server, Step, answer, is_permanent, ok};
use std::sync::{Arc, Mutex};
use store::{Fault, Memory, Step as StoreStep, process_of};
use support::{HOUR, SECOND};
use tokio::sync::Semaphore;
use tower::Service;
use tower_jwt_refresh::{
    BoxError, Token, TokenProvider, TokenRequest,
    clock::ManualClock,
    source::oauth2::{ClientAuth, OAuth2, OAuth2Error, TokenEndpoint},
    store::StoreLayer,
};

fn invalid_grant() -> Vec<Step> {
    answer("400 Bad Request", "", r#"{"error":"invalid_grant"}"#)
}

/// A process whose source was made with this refresh token.
struct Process {
    provider: TokenProvider,
    source: OAuth2,
    layer: StoreLayer,
    clock: ManualClock,
}

impl Process {
    fn new(server: &Server, memory: &Memory, refresh_token: &str) -> Self {
        let source = OAuth2::refresh_token(server.url(), ClientAuth::public("id"), refresh_token).build().unwrap();
        let clock = ManualClock::new();
        let (provider, layer) = process_of(StoreLayer::new(memory.clone()), source.clone(), &clock);
        Self { provider, source, layer, clock }
    }

    async fn secret(&self) -> String {
        store::secret(&self.provider).await
    }

    /// The token held and those that are stored are over.
    async fn later(&self) -> String {
        self.clock.advance(HOUR * 2);
        self.secret().await
    }
}

/// Takes these refresh tokens, as often as they are shown, and gives `t-<it>` for each with the successor `<it>+`.
async fn taking(valid: &'static [&'static str]) -> Server {
    oauth2::judging(move |asked: &Asked| {
        let shown = asked.param("refresh_token").unwrap();
        if !valid.contains(&shown.as_str()) {
            return invalid_grant();
        }
        ok(&format!(
            r#"{{"access_token":"t-{shown}","token_type":"Bearer","expires_in":3600,"refresh_token":"{shown}+"}}"#
        ))
    })
    .await
}

#[tokio::test]
async fn the_stored_refresh_token_is_shown_in_place_of_what_the_source_was_made_with() {
    let (server, memory) = (rotating().await, Memory::default());
    let [one, two] = [(); 2].map(|()| Process::new(&server, &memory, "r1"));
    assert_eq!((one.secret().await, two.secret().await), ("t1".to_owned(), "t1".to_owned()));
    assert_eq!(two.later().await, "t2");
    one.clock.advance(HOUR * 2);
    assert_eq!(one.secret().await, "t2");
    one.clock.advance(HOUR * 2);
    assert_eq!(one.secret().await, "t3");
    assert_eq!(shown(&server), ["r1", "r2", "r3"]);
    assert_eq!(memory.refresh_token().as_deref(), Some("r4"));
}

#[tokio::test]
async fn the_callback_is_called_as_without_a_store() {
    let (server, memory, clock) = (rotating().await, Memory::default(), ManualClock::new());
    let kept = Kept::default();
    let keeper = kept.clone();
    let source = refreshing(&server).on_rotation(move |new| {
        keeper.put(new);
        async { Ok(()) }
    });
    let (provider, _) = process_of(StoreLayer::new(memory), source.build().unwrap(), &clock);
    for _ in 0..3 {
        provider.token().await.unwrap();
        clock.advance(HOUR * 2);
    }
    assert_eq!(kept.all(), ["r2", "r3", "r4"]);
}

#[tokio::test]
async fn a_refresh_token_that_stays_the_same_is_stored() {
    let (server, memory) = (Server::new(|_| ok(r#"{"access_token":"t","expires_in":3600}"#)).await, Memory::default());
    assert_eq!(Process::new(&server, &memory, "r1").secret().await, "t");
    assert_eq!(memory.refresh_token().as_deref(), Some("r1"));
    let process = Process::new(&server, &memory, "r1");
    process.source.set_refresh_token("login").await.unwrap();
    assert_eq!(process.later().await, "t");
    assert_eq!(memory.refresh_token().as_deref(), Some("login"));
}

#[tokio::test]
async fn a_logins_refresh_token_goes_before_the_stored_one_until_the_server_has_answered_it() {
    let (server, memory) = (taking(&["r1", "login", "login+", "login++"]).await, Memory::default());
    let process = Process::new(&server, &memory, "r1");
    assert_eq!(process.secret().await, "t-r1");
    process.source.set_refresh_token("login").await.unwrap();
    assert_eq!(process.later().await, "t-login");
    assert_eq!(memory.refresh_token().as_deref(), Some("login+"));
    // From then on another process may have gone on with it.
    let other = Process::new(&server, &memory, "r1");
    other.clock.advance(HOUR * 2);
    assert_eq!(other.later().await, "t-login+");
    process.clock.advance(HOUR * 2);
    assert_eq!(process.later().await, "t-login++");
    assert_eq!(shown(&server), ["r1", "login", "login+", "login++"]);

    // Its own answer was lost, and it is shown again.
    let server = oauth2::judging(|asked| match asked.param("refresh_token").as_deref() {
        Some("lost") => vec![Step::Vanish],
        _ => with_refresh_token("r9"),
    })
    .await;
    let process = Process::new(&server, &Memory::default(), "r1");
    process.source.set_refresh_token("lost").await.unwrap();
    for _ in 0..2 {
        assert!(process.later().await.contains("Broken"));
    }
    assert_eq!(shown(&server), ["lost", "lost"]);
}

#[tokio::test]
async fn a_logins_refresh_token_that_is_refused_gives_way_to_the_stored_one() {
    let (server, memory) = (taking(&["r1", "r1+", "r1++"]).await, Memory::default());
    let process = Process::new(&server, &memory, "r1");
    assert_eq!(process.secret().await, "t-r1");
    process.source.set_refresh_token("wrong").await.unwrap();
    assert_eq!(process.later().await, "t-r1+");
    assert_eq!(process.later().await, "t-r1++");
    assert_eq!(shown(&server), ["r1", "wrong", "r1+", "r1++"]);
}

#[tokio::test]
async fn what_the_source_was_made_with_is_tried_once_where_the_stored_one_is_refused() {
    let (server, memory) = (taking(&["old", "new", "new+"]).await, Memory::default());
    assert_eq!(Process::new(&server, &memory, "old").secret().await, "t-old");
    // The user has logged in again, and restarts.
    let process = Process::new(&server, &memory, "new");
    assert_eq!(process.later().await, "t-new");
    assert_eq!(process.later().await, "t-new+");
    assert_eq!(shown(&server), ["old", "old+", "new", "new+"]);
    let error = {
        process.clock.advance(HOUR * 2);
        process.provider.token().await.unwrap_err()
    };
    assert!(is_permanent(&error));
    assert_eq!(shown(&server)[4..], ["new++"], "and not `new` again");
}

#[tokio::test]
async fn what_was_tried_and_got_no_answer_is_tried_again() {
    let server = oauth2::judging(|asked| match asked.param("refresh_token").as_deref() {
        Some("new") => vec![Step::Vanish],
        _ => invalid_grant(),
    })
    .await;
    let memory = Memory::default();
    let process = Process::new(&server, &memory, "new");
    process.layer.set(Token::opaque("t").unwrap().with_expires_in(SECOND), Some("old")).await.unwrap();
    for _ in 0..2 {
        assert!(process.later().await.contains("Broken"));
    }
    assert_eq!(shown(&server), ["old", "new", "old", "new"]);
}

#[tokio::test]
async fn a_refusal_of_both_is_permanent() {
    let (server, memory) = (taking(&[]).await, Memory::default());
    let process = Process::new(&server, &memory, "new");
    process.layer.set(Token::opaque("t").unwrap().with_expires_in(SECOND), Some("old")).await.unwrap();
    process.clock.advance(HOUR);
    assert!(is_permanent(&process.provider.token().await.unwrap_err()));
    assert_eq!(shown(&server), ["old", "new"]);
}

#[tokio::test]
async fn a_refresh_token_is_stored_though_the_access_token_beside_it_is_of_no_use() {
    let server = Server::new(|count| match count {
        0 => ok(r#"{"access_token":"t","token_type":"DPoP","refresh_token":"r2"}"#),
        _ => with_refresh_token("r3"),
    })
    .await;
    let memory = Memory::default();
    let process = Process::new(&server, &memory, "r1");
    assert!(is_permanent(&process.provider.token().await.unwrap_err()));
    assert_eq!(memory.refresh_token().as_deref(), Some("r2"));
    assert_eq!(Process::new(&server, &memory, "r1").secret().await, "t");
    assert_eq!(shown(&server), ["r1", "r2"]);
}

#[tokio::test]
async fn without_the_lock_it_is_not_shown_and_the_error_says_why() {
    let (server, memory) = (rotating().await, Memory::default());
    memory.break_down(StoreStep::Lock, Fault::Down);
    let process = Process::new(&server, &memory, "r1");
    let error = process.provider.token().await.unwrap_err();
    assert!(matches!(oauth2_error(&error), OAuth2Error::NotShown), "{error:?}");
    assert!(!is_permanent(&error));
    assert!(shown(&server).is_empty());
    // Nobody rotates these.
    let (provider, _) = process_of(
        StoreLayer::new(memory.clone()),
        oauth2::client_credentials(&Server::new(|_| with_refresh_token("unused")).await).build().unwrap(),
        &ManualClock::new(),
    );
    assert_eq!(store::secret(&provider).await, "t");
}

#[tokio::test]
async fn after_a_logout_elsewhere_no_refresh_token_of_before_is_shown() {
    let (server, memory) = (taking(&["r1", "login"]).await, Memory::default());
    let [one, two] = [(); 2].map(|()| Process::new(&server, &memory, "r1"));
    assert_eq!(one.secret().await, "t-r1");
    one.layer.clear().await.unwrap();
    one.clock.advance(HOUR * 2);
    let error = one.provider.token().await.unwrap_err();
    assert!(matches!(oauth2_error(&error), OAuth2Error::SignedOut), "{error:?}");
    assert!(is_permanent(&error));
    assert_eq!(shown(&server), ["r1"]);
    // One that was never shown may be of a new login.
    assert_eq!(two.secret().await, "t-r1");
    one.layer.clear().await.unwrap();
    one.source.set_refresh_token("login").await.unwrap();
    one.clock.advance(HOUR * 2);
    assert_eq!(one.provider.refresh().await.unwrap().expose_secret(), "t-login");
    assert_eq!(memory.refresh_token().as_deref(), Some("login+"));
}

#[tokio::test]
async fn nothing_that_is_shared_is_printed() {
    let (server, memory) = (taking(&["s3cr3t-r1"]).await, Memory::default());
    let process = Process::new(&server, &memory, "s3cr3t-r1");
    let request = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&request);
    let looking = tower::service_fn(move |request: TokenRequest| {
        *seen.lock().unwrap() = format!("{request:?}");
        async { Err::<Token, BoxError>("looked".into()) }
    });
    process.secret().await;
    let (looker, layer) = process_of(StoreLayer::new(memory.clone()), looking, &process.clock);
    process.clock.advance(HOUR * 2);
    let error = looker.token().await.unwrap_err();
    assert!(memory.value().unwrap().contains("s3cr3t-r1+"));
    for printed in [request.lock().unwrap().clone(), format!("{error:?} {layer:?}")] {
        assert!(!printed.contains("s3cr3t") && !printed.is_empty(), "{printed}");
    }
}

#[tokio::test]
async fn what_was_spent_within_the_fetch_is_not_shown_again() {
    let server = Server::new(|count| match count {
        0 => ok(r#"{"access_token":"t","token_type":"DPoP","refresh_token":"r2"}"#),
        _ => with_refresh_token("r3"),
    })
    .await;
    let (memory, clock) = (Memory::default(), ManualClock::new());
    let source = OAuth2::refresh_token(server.url(), ClientAuth::public("id"), "r0").build().unwrap();
    // As a layer does that retries.
    let twice = tower::service_fn(move |request: TokenRequest| {
        let mut source = source.clone();
        async move {
            source.call(request.clone()).await.unwrap_err();
            source.call(request).await
        }
    });
    let (provider, layer) = process_of(StoreLayer::new(memory.clone()), twice, &clock);
    layer.set(Token::opaque("of-the-login").unwrap().with_expires_in(SECOND), Some("r1")).await.unwrap();
    clock.advance(HOUR);
    assert_eq!(store::secret(&provider).await, "t");
    assert_eq!(shown(&server), ["r1", "r2"]);
    assert_eq!(memory.refresh_token().as_deref(), Some("r3"));
}

#[tokio::test]
async fn a_logout_is_not_undone_by_a_process_that_has_only_adopted() {
    let (server, memory) = (taking(&["r1", "login"]).await, Memory::default());
    let [one, two] = [(); 2].map(|()| Process::new(&server, &memory, "r1"));
    for process in [&one, &two] {
        assert_eq!(process.secret().await, "t-r1");
    }
    one.layer.clear().await.unwrap();
    two.clock.advance(HOUR * 2);
    let error = two.provider.token().await.unwrap_err();
    assert!(matches!(oauth2_error(&error), OAuth2Error::SignedOut), "{error:?}");
    two.source.set_refresh_token("login").await.unwrap();
    assert_eq!(two.provider.refresh().await.unwrap().expose_secret(), "t-login");
    assert_eq!(shown(&server), ["r1", "login"]);
}

// A machine that was suspended.
#[tokio::test]
async fn a_refresh_token_is_not_shown_once_the_lock_is_lost_though_it_was_held_when_the_source_was_called() {
    let permits = Arc::new(Semaphore::new(0));
    let (wait, entered) = (Arc::clone(&permits), Arc::new(Semaphore::new(0)));
    let enter = Arc::clone(&entered);
    let server = oauth2::judging(move |asked| match asked.path() {
        _ if asked.is_token_request() => with_refresh_token("r2"),
        "/.well-known/oauth-authorization-server/tenant" => {
            enter.add_permits(1);
            [vec![Step::Wait(Arc::clone(&wait))], ok(&oauth2::metadata(asked, ""))].concat()
        }
        _ => answer("404 Not Found", "", ""),
    })
    .await;
    for spends in [false, true] {
        let memory = Memory::default();
        let endpoint = TokenEndpoint::discover(oauth2::issuer(&server));
        let source = OAuth2::refresh_token(endpoint, ClientAuth::public("id"), "r1").build().unwrap();
        let layer = StoreLayer::new(memory.clone());
        let layer = if spends { layer.spend_without_lock() } else { layer };
        let (provider, _) = process_of(layer, source, &ManualClock::new());
        let asking = tokio::spawn(async move { provider.token().await });
        entered.acquire().await.unwrap().forget();
        memory.end_lock();
        permits.add_permits(1);
        match asking.await.unwrap() {
            Ok(_) => assert!(spends),
            Err(error) => assert!(!spends && matches!(oauth2_error(&error), OAuth2Error::NotShown), "{error:?}"),
        }
        assert_eq!(oauth2::token_requests(&server).len(), usize::from(spends));
    }
}
