//! An API server on loopback with config maps in one namespace and tokens that can be revoked, and the issuer of those tokens.

use axum::{
    Json, Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::net::TcpListener;
use tower_jwt_refresh::{BoxError, Token};

/// Clones are the same server.
#[derive(Clone, Default)]
pub struct Server(Arc<Mutex<Inner>>);

#[derive(Default)]
pub struct Inner {
    pub living: HashSet<String>,
    pub refuse_all: bool,
    pub issuer_down: bool,
    pub fetches: usize,
    pub requests: usize,
    pub refused: usize,
    pub created: Vec<Value>,
}

impl Server {
    /// Listens on loopback; gives its URL.
    pub async fn start(&self) -> Result<String, BoxError> {
        let maps = "/api/v1/namespaces/default/configmaps";
        let router = Router::new()
            .route(maps, get(list).post(create))
            .layer(middleware::from_fn_with_state(self.clone(), judge))
            .with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(url)
    }

    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every token that was issued so far is refused from now on.
    pub fn revoke_all(&self) {
        self.inner().living.clear();
    }

    /// What the token source asks: stands in for the cloud's identity service.
    pub fn issue(&self) -> Result<Token, BoxError> {
        let mut inner = self.inner();
        inner.fetches += 1;
        if inner.issuer_down {
            return Err("the issuer is down".into());
        }
        let token = format!("token-{}", inner.fetches);
        inner.living.insert(token.clone());
        Ok(Token::opaque(token)?.with_expires_in(std::time::Duration::from_secs(3600)))
    }
}

async fn judge(State(server): State<Server>, request: Request, next: Next) -> Response {
    let value = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
    let good = {
        let mut inner = server.inner();
        inner.requests += 1;
        let good = !inner.refuse_all && token.is_some_and(|token| inner.living.contains(&token));
        inner.refused += usize::from(!good);
        good
    };
    if good {
        return next.run(request).await;
    }
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Unauthorized",
        "message": "Unauthorized", "code": 401 });
    (StatusCode::UNAUTHORIZED, Json(status)).into_response()
}

async fn list(State(server): State<Server>) -> Json<Value> {
    let items = server.inner().created.clone();
    Json(json!({ "kind": "ConfigMapList", "apiVersion": "v1", "metadata": {}, "items": items }))
}

async fn create(State(server): State<Server>, Json(map): Json<Value>) -> (StatusCode, Json<Value>) {
    server.inner().created.push(map.clone());
    (StatusCode::CREATED, Json(map))
}
