//! The provider's machine: its issuer, its clients, and what it has seen.

use base64::Engine;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use std::path::PathBuf;
use tower_jwt_refresh::{BoxError, Token, source::SigningKey};

/// An API whose tokens are signed, and live for 3 s.
pub(crate) const JWT: &str = "jwt";
/// An API that asks the provider about each token, so that one can be revoked. They live for a minute.
pub(crate) const OPAQUE: &str = "opaque";

pub(crate) type Http = Client<HttpConnector, Full<Bytes>>;

#[derive(Debug)]
pub(crate) struct Server {
    issuer: String,
    directory: PathBuf,
    http: Http,
}

/// All that was asked at the token endpoint so far.
#[derive(Deserialize)]
pub(crate) struct Seen {
    grants: Vec<Grant>,
    #[serde(rename = "refreshTokens")]
    refresh_tokens: Vec<Issued>,
    #[serde(rename = "accessTokens")]
    access_tokens: Vec<String>,
}

#[derive(Deserialize)]
struct Grant {
    client: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Issued {
    client: String,
    token: String,
}

impl Seen {
    /// How often this client asked with this grant.
    pub(crate) fn grants(&self, client: &str, kind: &str) -> usize {
        self.of(client, kind).count()
    }

    /// What it was refused for.
    pub(crate) fn errors(&self, client: &str, kind: &str) -> Vec<&str> {
        self.of(client, kind).filter_map(|grant| grant.error.as_deref()).collect()
    }

    fn of(&self, client: &str, kind: &str) -> impl Iterator<Item = &Grant> {
        self.grants
            .iter()
            .filter(move |grant| grant.client.as_deref() == Some(client) && grant.kind.as_deref() == Some(kind))
    }

    /// The refresh tokens this client was given, the first at its login.
    pub(crate) fn refresh_tokens(&self, client: &str) -> Vec<&str> {
        let mine = self.refresh_tokens.iter().filter(|issued| issued.client == client);
        mine.map(|issued| issued.token.as_str()).collect()
    }

    /// Every token it gave to anybody.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = &str> {
        let refresh = self.refresh_tokens.iter().map(|issued| &issued.token);
        refresh.chain(&self.access_tokens).map(String::as_str)
    }
}

impl Server {
    pub(crate) fn new(issuer: String, directory: PathBuf) -> Self {
        Self { issuer, directory, http: Client::builder(TokioExecutor::new()).build_http() }
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The same machine by another name, which is not the issuer's.
    pub(crate) fn misnamed(&self) -> String {
        self.issuer.replace("127.0.0.1", "localhost")
    }

    pub(crate) fn token_url(&self) -> String {
        format!("{}/token", self.issuer)
    }

    pub(crate) fn api(&self, kind: &str) -> String {
        format!("{}/api/{kind}", self.issuer)
    }

    /// A client without the layer.
    pub(crate) fn http(&self) -> Http {
        self.http.clone()
    }

    /// What was logged goes there.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// The private key of the client `key-<algorithm>`.
    pub(crate) fn key(&self, algorithm: &str) -> Result<SigningKey, BoxError> {
        let pem = std::fs::read(self.directory.join(format!("{algorithm}.pem")))?;
        Ok(SigningKey::from_pem(pem)?.key_id(format!("{algorithm}-1")))
    }

    /// A user logs in to this client, and it gets its first refresh token.
    pub(crate) async fn login(&self, client: &str, api: &str) -> Result<String, BoxError> {
        #[derive(Deserialize)]
        struct Login {
            refresh_token: String,
        }
        let answer = self.get(&format!("/test/login/{client}/{}", resource(api))).await?;
        let login: Login = serde_json::from_slice(&answer)?;
        Ok(login.refresh_token)
    }

    /// The provider does not know this access token any more, and knows its refresh token still.
    pub(crate) async fn forget(&self, token: &Token) -> Result<(), BoxError> {
        self.get(&format!("/test/forget/{}", token.expose_secret())).await.map(drop)
    }

    pub(crate) async fn seen(&self) -> Result<Seen, BoxError> {
        Ok(serde_json::from_slice(&self.get("/test/seen").await?)?)
    }

    /// Revokes an access token (RFC 7009), as its own client.
    pub(crate) async fn revoke(&self, token: &Token, id: &str, secret: Option<&str>) -> Result<(), BoxError> {
        let request = Request::post(format!("{}/token/revocation", self.issuer))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let (request, client) = match secret {
            Some(secret) => {
                let pair = base64::prelude::BASE64_STANDARD.encode(format!("{id}:{secret}"));
                (request.header(header::AUTHORIZATION, format!("Basic {pair}")), String::new())
            }
            None => (request, format!("&client_id={id}")),
        };
        // Opaque tokens and these clients' names are made of letters that stand for themselves in a form.
        let response =
            self.http.request(request.body(Full::from(format!("token={}{client}", token.expose_secret())))?).await?;
        match response.status() {
            StatusCode::OK => Ok(()),
            status => Err(format!("the provider does not revoke: {status}").into()),
        }
    }

    async fn get(&self, path: &str) -> Result<Bytes, BoxError> {
        let request = Request::get(format!("{}{path}", self.issuer)).body(Full::default())?;
        let response = self.http.request(request).await?;
        let (status, body) = (response.status(), response.into_body().collect().await?.to_bytes());
        if status.is_success() { Ok(body) } else { Err(format!("{path}: {status}").into()) }
    }
}

/// The API's name in `resource` (RFC 8707).
pub(crate) fn resource(api: &str) -> String {
    format!("urn:interop:{api}")
}
