//! A service-account token that the kubelet projects into a folder and replaces there: requests follow, and no caller sees a 401.
//!
//! `cargo run --example kubernetes_token`, on any machine: it stands in for the kubelet in a folder of its own, and for the API on loopback. A minute is a second
//! here.

use axum::{Router, extract::State, http::HeaderMap, routing::get};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_jwt_refresh::{BoxError, JwtRefresh, JwtRefreshLayer, TokenProvider, TokenStatus, source::TokenFile};

const MINUTE: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let folder = tempfile::tempdir()?;
    let kubelet = Kubelet { folder: folder.path().to_owned() };
    let api = Api::default();
    let url = api.serve().await?;

    // In a pod: /var/run/secrets/kubernetes.io/serviceaccount/token, or where a volume projects a token for your audience. Leave the minute as it is.
    let source = TokenFile::new(folder.path().join("token")).refresh_after(MINUTE);
    let provider = TokenProvider::new(source);
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let client = ServiceBuilder::new().layer(JwtRefreshLayer::new(provider.clone())).service(client);
    let mut pod = Pod { url, client, answers: 0 };

    kubelet.project(1)?;
    api.accept(&[1]);
    provider.init().await?;
    pod.sends_until(&api, 1).await?;
    println!("the kubelet projected token 1, and the API sees it");

    kubelet.project(2)?;
    api.accept(&[1, 2]);
    let since = Instant::now();
    pod.sends_until(&api, 2).await?;
    println!("it projected token 2, and the API sees it after {:.1?}: the next look at the file", since.elapsed());

    kubelet.project(3)?;
    api.accept(&[3]);
    pod.sends_until(&api, 3).await?;
    let refused = api.lock().refused;
    println!(
        "it projected token 3, and token 2 was revoked: {refused} refusal, a look at the file, and the request was sent again"
    );

    kubelet.unmount()?;
    status(&provider, |status| matches!(status, TokenStatus::Failing { .. })).await?;
    pod.sends_until(&api, 3).await?;
    println!("the volume is gone: requests go on with token 3, and the provider's status tells");

    kubelet.project(4)?;
    api.accept(&[4]);
    status(&provider, |status| *status == TokenStatus::Fresh).await?;
    pod.sends_until(&api, 4).await?;
    println!("it is back, with token 4; all {} answers to the pod were 200", pod.answers);
    Ok(())
}

async fn status(provider: &TokenProvider, is: fn(&TokenStatus) -> bool) -> Result<(), BoxError> {
    tokio::time::timeout(10 * MINUTE, provider.subscribe().wait_for(is)).await??;
    Ok(())
}

/// A client in a pod.
struct Pod {
    url: String,
    client: JwtRefresh<Client<HttpConnector, Full<Bytes>>>,
    answers: u32,
}

impl Pod {
    /// Sends at least once, and until the API sees this token. Anything but a 200 ends the example.
    async fn sends_until(&mut self, api: &Api, number: u32) -> Result<(), BoxError> {
        let began = Instant::now();
        api.lock().seen = None;
        while api.lock().seen != Some(number) {
            if began.elapsed() > 10 * MINUTE {
                return Err(format!("the API never saw token {number}").into());
            }
            tokio::time::sleep(MINUTE / 20).await;
            let request = Request::get(&self.url).body(Full::default())?;
            let status = self.client.ready().await?.call(request).await?.status();
            if status != StatusCode::OK {
                return Err(format!("the pod was answered {status}").into());
            }
            self.answers += 1;
        }
        Ok(())
    }
}

/// Puts tokens where a pod finds them.
struct Kubelet {
    folder: PathBuf,
}

impl Kubelet {
    /// Each state of a volume is a folder of its own. `..data` leads to the newest, and is replaced at once; `token` leads there through it.
    fn project(&self, number: u32) -> io::Result<()> {
        let state = format!("..state_{number}");
        fs::create_dir(self.folder.join(&state))?;
        fs::write(self.folder.join(&state).join("token"), jwt(number))?;
        link(Path::new(&state), &self.folder.join("..data_tmp"))?;
        fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data"))?;
        if number == 1 { link(Path::new("..data/token"), &self.folder.join("token")) } else { Ok(()) }
    }

    fn unmount(&self) -> io::Result<()> {
        fs::remove_file(self.folder.join("..data"))
    }
}

#[cfg(unix)]
fn link(to: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(to, at)
}

#[cfg(windows)]
fn link(to: &Path, at: &Path) -> io::Result<()> {
    let folder = at.parent().is_some_and(|parent| parent.join(to).is_dir());
    if folder { std::os::windows::fs::symlink_dir(to, at) } else { std::os::windows::fs::symlink_file(to, at) }
}

/// A token of an hour.
fn jwt(number: u32) -> String {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() + 3600;
    let part = |claims: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
    let (header, claims) = (serde_json::json!({"alg": "RS256"}), serde_json::json!({"exp": exp, "jti": number}));
    format!("{}.{}.c2lnbmF0dXJl", part(header), part(claims))
}

/// The API server, which knows a token by its number.
#[derive(Clone, Default)]
struct Api(Arc<Mutex<Numbers>>);

#[derive(Default)]
struct Numbers {
    accepted: Vec<u32>,
    /// Of the last request that was accepted.
    seen: Option<u32>,
    refused: u32,
}

impl Api {
    async fn serve(&self) -> io::Result<String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/api/v1/pods", listener.local_addr()?);
        let router = Router::new().route("/api/v1/pods", get(pods)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(url)
    }

    fn accept(&self, numbers: &[u32]) {
        self.lock().accepted = numbers.to_vec();
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pods(State(api): State<Api>, headers: HeaderMap) -> StatusCode {
    let number = number(&headers);
    let mut numbers = api.lock();
    if number.is_some_and(|number| numbers.accepted.contains(&number)) {
        numbers.seen = number;
        StatusCode::OK
    } else {
        numbers.refused += 1;
        StatusCode::UNAUTHORIZED
    }
}

fn number(headers: &HeaderMap) -> Option<u32> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<serde_json::Value>(&claims).ok()?["jti"].as_u64()?.try_into().ok()
}
