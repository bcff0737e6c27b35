//! Each grant and each way to authenticate: what is sent, and what is made of the answer.

#[path = "support/oauth2.rs"]
mod oauth2;
#[path = "support/exchange.rs"]
mod server;
mod support;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use oauth2::{
    Asked, asked, claims, client_credentials, issuer, oauth2_error, once, provider, refreshing, with_metadata,
};
use server::{Server, Step, exchange_error, is_permanent, ok, printed};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use support::{HOUR, SECOND};
use tokio::sync::Semaphore;
use tower::service_fn;
use tower_jwt_refresh::{
    BoxError, SourceError, Token, TokenProvider, TokenRequest,
    clock::{Clock, ManualClock},
    source::{
        EndpointError, SignedJwt, SigningKey,
        oauth2::{ClientAuth, OAuth2, OAuth2Builder, OAuth2Error, TokenEndpoint},
    },
};

const TOKEN: &str = r#"{"access_token":"t","token_type":"Bearer"}"#;

async fn giver() -> Server {
    Server::new(|_| ok(TOKEN)).await
}

/// What one fetch sends.
async fn sent(source: impl FnOnce(&Server) -> OAuth2Builder) -> Asked {
    let server = giver().await;
    assert_eq!(once(source(&server)).await.unwrap().expose_secret(), "t");
    asked(&server).remove(0)
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A source of `<prefix>1`, `<prefix>2`, ...
fn numbered(
    prefix: &'static str,
) -> impl tower::Service<TokenRequest, Response = Token, Error = BoxError, Future: Send + 'static> + Send + 'static {
    let count = Arc::new(AtomicUsize::new(0));
    service_fn(move |_: TokenRequest| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        async move { Ok::<_, BoxError>(Token::opaque(format!("{prefix}{number}"))?) }
    })
}

#[tokio::test]
async fn client_credentials_are_a_form_with_the_secret_in_the_header() {
    let asked = sent(|server| {
        client_credentials(server)
            .scope("a")
            .scope("read write")
            .audience("one")
            .audience("two")
            .resource("https://api.example.com/x")
            .resource("urn:example:y")
            .param("tenant", "no")
            .param("tenant", "a&b=\u{fc}")
    })
    .await;
    assert_eq!(asked.path(), "/api/v1/auth/token");
    assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(asked.header("accept"), Some("application/json"));
    assert_eq!(asked.header("authorization"), Some("Basic aWQ6ZHVyYWJsZS1zM2NyM3Q="));
    let expected = [
        ("grant_type", "client_credentials"),
        ("scope", "read write"),
        ("audience", "one"),
        ("audience", "two"),
        ("resource", "https://api.example.com/x"),
        ("resource", "urn:example:y"),
        ("tenant", "a&b=\u{fc}"),
    ];
    assert_eq!(asked.form(), pairs(&expected));
}

#[tokio::test]
async fn each_way_to_authenticate_sends_its_own_and_nothing_else() {
    let asked = async |auth| sent(|server| OAuth2::client_credentials(server.url(), auth)).await;
    let grant = ("grant_type", "client_credentials");

    let post = asked(ClientAuth::post("id", "p+q")).await;
    assert_eq!(post.form(), pairs(&[grant, ("client_id", "id"), ("client_secret", "p+q")]));
    let public = asked(ClientAuth::public("id")).await;
    assert_eq!(public.form(), pairs(&[grant, ("client_id", "id")]));
    let none = asked(ClientAuth::none()).await;
    assert_eq!(none.form(), pairs(&[grant]));
    let basic = asked(ClientAuth::basic("a:b", "c d")).await;
    assert_eq!(basic.header("authorization"), Some("Basic YSUzQWI6Yytk"), "a%3Ab:c+d");
    for others in [post, public, none] {
        assert_eq!(others.header("authorization"), None);
    }
}

fn rsa() -> SigningKey {
    SigningKey::from_pem(include_bytes!("keys/rsa.pem")).unwrap().key_id("k1")
}

/// Verified by what shares no code with us.
fn verified(assertion: &str, audience: &str) -> serde_json::Value {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    let key = DecodingKey::from_rsa_pem(include_bytes!("keys/rsa-public.pem")).unwrap();
    jsonwebtoken::decode(assertion, &key, &validation).unwrap().claims
}

// Scenario 102; govuk-one-login/authentication-api#8427.
#[tokio::test]
async fn a_client_assertion_is_signed_anew_for_each_fetch_and_is_for_the_token_endpoint() {
    let server = giver().await;
    let (provider, clock) =
        provider(OAuth2::client_credentials(server.url(), ClientAuth::private_key_jwt("id", rsa())));
    for _ in 0..2 {
        provider.refresh().await.unwrap();
        clock.advance(HOUR);
    }
    let asked = asked(&server);
    let [one, two] = [0, 1].map(|at: usize| {
        let asked = &asked[at];
        assert_eq!(asked.param("client_id").as_deref(), Some("id"));
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        assert_eq!(asked.param("client_assertion_type").as_deref(), Some(kind));
        verified(&asked.param("client_assertion").unwrap(), &server.url())
    });
    assert_eq!((&one["iss"], &one["sub"]), (&"id".into(), &"id".into()));
    assert_ne!(one["jti"], two["jti"]);
    let (exp, iat) = (one["exp"].as_u64().unwrap(), one["iat"].as_u64().unwrap());
    assert!(exp - iat <= 121, "a minute, and one for clocks that differ: {one}");
}

#[tokio::test]
async fn a_client_assertion_is_for_the_issuer_if_that_was_discovered_and_for_whom_the_user_says() {
    let server = with_metadata(|_| ok(TOKEN)).await;
    let place = || TokenEndpoint::discover(issuer(&server));
    once(OAuth2::client_credentials(place(), ClientAuth::private_key_jwt("id", rsa()))).await.unwrap();
    let named = ClientAuth::private_key_jwt("id", rsa()).audience("https://named.example.com");
    once(OAuth2::client_credentials(place(), named)).await.unwrap();
    let asked = oauth2::token_requests(&server);
    verified(&asked[0].param("client_assertion").unwrap(), &issuer(&server));
    verified(&asked[1].param("client_assertion").unwrap(), "https://named.example.com");
}

#[tokio::test]
async fn a_refresh_token_is_sent_as_it_is() {
    let asked = sent(refreshing).await;
    let expected = [("grant_type", "refresh_token"), ("refresh_token", "r1"), ("client_id", "id")];
    assert_eq!(asked.form(), pairs(&expected));
}

// Scenario 102.
#[tokio::test]
async fn a_jwt_bearer_assertion_is_had_anew_for_each_fetch() {
    let server = giver().await;
    let assertion = SignedJwt::new(rsa()).issuer("me").subject("me").audience(server.url());
    let (provider, clock) = provider(OAuth2::jwt_bearer(server.url(), ClientAuth::none(), assertion).scope("a"));
    for _ in 0..2 {
        provider.refresh().await.unwrap();
        clock.advance(HOUR);
    }
    let asked = asked(&server);
    let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    assert_eq!(asked[0].param("grant_type").as_deref(), Some(grant));
    assert_eq!(asked[0].param("scope").as_deref(), Some("a"));
    let [one, two] = [0, 1].map(|at: usize| asked[at].param("assertion").unwrap());
    assert_eq!(verified(&one, &server.url())["iss"], "me");
    assert_ne!(claims(&one)["jti"], claims(&two)["jti"]);
}

#[tokio::test]
async fn a_token_exchange_shows_subject_and_actor_anew_for_each_fetch() {
    let server = giver().await;
    let source = OAuth2::token_exchange(server.url(), ClientAuth::none(), numbered("subject"))
        .subject_token_type("urn:example:subject")
        .actor_token(numbered("actor"), "urn:example:actor")
        .requested_token_type("urn:example:wanted")
        .audience("them");
    let (provider, clock) = provider(source);
    for _ in 0..2 {
        provider.refresh().await.unwrap();
        clock.advance(HOUR);
    }
    let asked = asked(&server);
    let expected = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", "subject1"),
        ("subject_token_type", "urn:example:subject"),
        ("actor_token", "actor1"),
        ("actor_token_type", "urn:example:actor"),
        ("requested_token_type", "urn:example:wanted"),
        ("audience", "them"),
    ];
    assert_eq!(asked[0].form(), pairs(&expected));
    assert_eq!(asked[1].param("subject_token").as_deref(), Some("subject2"));
    assert_eq!(asked[1].param("actor_token").as_deref(), Some("actor2"));
}

#[tokio::test]
async fn a_subject_token_is_called_a_jwt_unless_it_is_said_otherwise() {
    let asked = sent(|server| OAuth2::token_exchange(server.url(), ClientAuth::none(), numbered("s"))).await;
    assert_eq!(asked.param("subject_token_type").as_deref(), Some("urn:ietf:params:oauth:token-type:jwt"));
    assert_eq!(asked.form().len(), 3, "no more than was set");
}

#[tokio::test]
async fn what_a_token_exchange_gives_may_be_no_access_token() {
    let body =
        r#"{"access_token":"t","token_type":"N_A","issued_token_type":"urn:ietf:params:oauth:token-type:id_token"}"#;
    let server = Server::new(move |_| ok(body)).await;
    let exchange = OAuth2::token_exchange(server.url(), ClientAuth::none(), numbered("s"));
    assert_eq!(once(exchange).await.unwrap().expose_secret(), "t");
    let error = once(client_credentials(&server)).await.unwrap_err();
    assert!(printed(&error).contains("`token_type` is not Bearer"), "{}", printed(&error));
    assert!(is_permanent(&error), "each fetch would mint another that is of no use");
}

#[tokio::test]
async fn an_assertion_that_cannot_be_had_is_the_error_and_says_itself_when_to_ask_again() {
    let server = giver().await;
    for permanent in [true, false] {
        let failing = service_fn(move |_: TokenRequest| async move {
            let error = if permanent { SourceError::permanent("no key") } else { SourceError::transient("no key") };
            Err::<Token, BoxError>(error.into())
        });
        let error = once(OAuth2::jwt_bearer(server.url(), ClientAuth::none(), failing)).await.unwrap_err();
        assert!(matches!(oauth2_error(&error), OAuth2Error::Presented { what: "assertion", .. }), "{error:?}");
        assert_eq!(is_permanent(&error), permanent);
    }
    let hanging = service_fn(|_: TokenRequest| std::future::pending::<Result<Token, BoxError>>());
    let exchange = OAuth2::token_exchange(server.url(), ClientAuth::none(), hanging).timeout(SECOND / 20);
    let error = once(exchange).await.unwrap_err();
    assert!(matches!(oauth2_error(&error), OAuth2Error::Late { what: "subject token", .. }), "{error:?}");
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn the_time_for_a_fetch_is_for_what_is_shown_too() {
    let server = giver().await;
    let slow = service_fn(|_: TokenRequest| async {
        // Nothing waits for a socket while tokio's clock is moved by hand.
        tokio::time::pause();
        tokio::time::advance(SECOND * 21).await;
        tokio::time::resume();
        Ok::<_, BoxError>(Token::opaque("subject")?)
    });
    let error = once(OAuth2::token_exchange(server.url(), ClientAuth::none(), slow)).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::TimedOut { .. }), "{error:?}");
}

// Scenario 47.
#[tokio::test]
async fn expires_in_counts_from_the_asking_however_long_the_answer_takes() {
    let (permits, clock) = (Arc::new(Semaphore::new(0)), ManualClock::new());
    let wait = Arc::clone(&permits);
    let body = r#"{"access_token":"t","expires_in":3600}"#;
    let server = Server::new(move |_| [vec![Step::Wait(Arc::clone(&wait))], ok(body)].concat()).await;
    let source = client_credentials(&server).build().unwrap();
    let provider = TokenProvider::builder().clock(clock.clone()).build(source).unwrap();
    let asked_at = clock.wall();
    let waiting = tokio::spawn({
        let provider = provider.clone();
        async move { provider.token().await }
    });
    while server.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    clock.advance(SECOND * 8);
    permits.add_permits(1);
    assert_eq!(waiting.await.unwrap().unwrap().expires_at(), Some(asked_at + HOUR));
}

// Scenario 100; openclaw/openclaw#144082.
#[tokio::test]
async fn an_answer_without_a_lifetime_never_inherits_the_last_ones() {
    let server = Server::new(|count| {
        ok(if count == 0 {
            r#"{"access_token":"t1","expires_in":60,"refresh_token":"r2"}"#
        } else {
            r#"{"access_token":"t2"}"#
        })
    })
    .await;
    let (provider, clock) = provider(refreshing(&server));
    assert!(provider.token().await.unwrap().expires_at().is_some());
    clock.advance(HOUR);
    let token = provider.token().await.unwrap();
    assert_eq!((token.expose_secret(), token.expires_at()), ("t2", None));
}

// Scenario 101; decocms/studio#6112.
#[tokio::test]
async fn an_absurd_lifetime_leads_neither_to_a_panic_nor_to_a_storm() {
    for lifetime in ["null", "-1", "0", "1e20", "1e400", "\"NaN\"", "3600000000", "[]"] {
        let server = Server::new(move |_| ok(&format!(r#"{{"access_token":"t","expires_in":{lifetime}}}"#))).await;
        let (provider, clock) = provider(client_credentials(&server));
        for _ in 0..100 {
            assert_eq!(provider.token().await.unwrap().expose_secret(), "t");
            clock.advance(SECOND * 60);
        }
        assert_eq!(server.asked().len(), 1, "{lifetime}");
    }
}

// golang/oauth2#388.
#[test]
fn a_source_outlives_the_runtime_that_built_it() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let server = second.block_on(oauth2::rotating());
    let source = first.block_on(async { refreshing(&server).build().unwrap() });
    drop(first);
    let (provider, _) = oauth2::provider_of(source);
    assert_eq!(second.block_on(provider.token()).unwrap().expose_secret(), "t1");
}

// The error that matters is the token endpoint's own.
#[tokio::test]
async fn an_error_of_the_token_endpoint_is_found_in_the_chain() {
    let server = Server::new(|_| server::answer("400 Bad Request", "", r#"{"error":"invalid_target"}"#)).await;
    let error = once(client_credentials(&server)).await.unwrap_err();
    assert!(exchange_error(&error).to_string().contains("invalid_target"), "RFC 8707 section 2: {error:?}");
    assert!(is_permanent(&error));
}
