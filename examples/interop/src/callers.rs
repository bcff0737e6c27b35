//! Many callers that share one client with the layer.

use crate::server::Http;
use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    time::{Duration, Instant},
};
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{BoxError, JwtRefresh, JwtRefreshLayer, TokenProvider};

pub(crate) const CALLERS: usize = 20;

#[derive(Debug)]
pub(crate) struct Callers {
    client: JwtRefresh<Http>,
    url: String,
}

/// How requests ended, as their callers saw it.
#[derive(Debug, Default)]
pub(crate) struct Ends(BTreeMap<String, usize>);

impl Callers {
    pub(crate) fn new(http: Http, provider: &TokenProvider, url: String) -> Self {
        Self { client: JwtRefreshLayer::new(provider.clone()).layer(http), url }
    }

    /// Each sends one request after another for so long.
    pub(crate) async fn call_for(&self, span: Duration) -> Result<Ends, BoxError> {
        let end = Instant::now() + span;
        self.all(async |ends: &mut Ends| {
            while Instant::now() < end {
                ends.add(self.call().await?);
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            Ok(())
        })
        .await
    }

    /// Each sends one request, all at once.
    pub(crate) async fn call_once(&self) -> Result<Ends, BoxError> {
        self.all(async |ends: &mut Ends| {
            ends.add(self.call().await?);
            Ok(())
        })
        .await
    }

    async fn all(&self, caller: impl AsyncFn(&mut Ends) -> Result<(), BoxError>) -> Result<Ends, BoxError> {
        let ends = join_all((0..CALLERS).map(async |_| {
            let mut ends = Ends::default();
            caller(&mut ends).await?;
            Ok::<_, BoxError>(ends)
        }));
        let mut all = Ends::default();
        for ends in ends.await {
            for (end, count) in ends?.0 {
                *all.0.entry(end).or_default() += count;
            }
        }
        Ok(all)
    }

    /// A status, or what the layer says instead of one.
    async fn call(&self) -> Result<String, BoxError> {
        let request = Request::get(&self.url).body(Full::<Bytes>::default())?;
        Ok(match self.client.clone().oneshot(request).await {
            Ok(response) => {
                let status = response.status();
                response.into_body().collect().await?;
                status.as_u16().to_string()
            }
            Err(error) => bottom(&*error),
        })
    }
}

impl Ends {
    fn add(&mut self, end: String) {
        *self.0.entry(end).or_default() += 1;
    }

    /// Nobody saw anything but 200, and somebody saw that.
    pub(crate) fn are_well(&self) -> bool {
        self.are_only("200")
    }

    /// Everybody saw this, and somebody was there.
    pub(crate) fn are_only(&self, end: &str) -> bool {
        self.0.keys().eq([end])
    }
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends: Vec<_> = self.0.iter().map(|(end, count)| format!("{count} x {end}")).collect();
        f.write_str(&ends.join(", "))
    }
}

/// The first of an error's causes.
pub(crate) fn bottom(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| (*error).source()).last().unwrap_or(error).to_string()
}
