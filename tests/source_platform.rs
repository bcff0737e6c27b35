//! An identity that the platform gives, exchanged for a token: the recipes of the page on sources, against a server on a real socket.

#[path = "support/files.rs"]
mod files;
#[path = "support/oauth2.rs"]
mod oauth2;
#[path = "support/exchange.rs"]
mod server;
mod support;

use files::Folder;
use oauth2::{asked, judging, provider, token_requests};
use server::{Server, ok};
use std::sync::atomic::{AtomicUsize, Ordering};
use support::HOUR;
use tower_jwt_refresh::source::{
    Exchange, TokenFile,
    oauth2::{ClientAuth, OAuth2},
};

/// Vouches for a job by `job-<n>` as GitHub does, and changes whatever vouches for somebody into a token.
async fn platform() -> Server {
    let count = AtomicUsize::new(0);
    judging(move |asked| {
        if asked.is_token_request() {
            return ok(r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#);
        }
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        ok(&format!(r#"{{"count":{number},"value":"job-{number}"}}"#))
    })
    .await
}

fn shown(server: &Server) -> Vec<String> {
    token_requests(server).iter().map(|asked| asked.param("subject_token").unwrap()).collect()
}

#[tokio::test]
async fn a_job_of_github_actions_is_vouched_for_anew_for_each_exchange() {
    let server = platform().await;
    let url = format!("{}?api-version=2.0", server.url());
    let job = Exchange::get(format!("{url}&audience=https://sts.example.com"))
        .bearer("of-the-run")
        .token_at("/value")
        .build()
        .unwrap();
    let (provider, clock) = provider(OAuth2::token_exchange(server.url(), ClientAuth::none(), job));
    for _ in 0..2 {
        assert_eq!(provider.refresh().await.unwrap().expose_secret(), "t");
        clock.advance(HOUR);
    }
    assert_eq!(shown(&server), ["job-1", "job-2"]);
    let first = &asked(&server)[0];
    assert!(first.path().ends_with("?api-version=2.0&audience=https://sts.example.com"), "{}", first.path());
    assert_eq!(first.header("authorization"), Some("Bearer of-the-run"));
}

#[tokio::test]
async fn what_the_kubelet_wrote_last_is_what_is_exchanged() {
    let (server, folder) = (platform().await, Folder::new());
    let pod = TokenFile::new(folder.path());
    let (provider, clock) = provider(OAuth2::token_exchange(server.url(), ClientAuth::none(), pod));
    for written in ["pod-1", "pod-2"] {
        folder.swap(written);
        assert_eq!(provider.refresh().await.unwrap().expose_secret(), "t");
        clock.advance(HOUR);
    }
    assert_eq!(shown(&server), ["pod-1", "pod-2"]);
}
