//! What a request costs through this layer, and through others that attach a token.
//!
//! All get their token from one token endpoint on this machine, by their own sources, and stand around one inner service that answers at once. Each is
//! set up as its own documentation says. Without a copy, a layer attaches the token and no more. With one, it could send the request again after a
//! 401: of the peers one does that itself, around the others stands `tower::retry`, which is how their users would do it.
//!
//! `cargo run --release`, with `-- --json` as the other benches.

mod by_hand;
mod cf_gears;
mod endpoint;
mod google_cloud;
mod inner;
mod kube;
mod round;
#[path = "../../support/mod.rs"]
mod support;
mod versions;

use inner::Inner;
use round::Variant;
use serde_json::json;
use std::{env, process::ExitCode};
use support::{
    Report,
    request::{Keep, secret},
    timing,
};
use tokio::runtime::Runtime;
use tower::{BoxError, Layer, retry::RetryLayer};
use tower_http::auth::AddAuthorizationLayer;
use tower_jwt_refresh::{
    JwtRefreshLayer, RetryPolicy, TokenProvider,
    source::oauth2::{ClientAuth, OAuth2, TokenEndpoint},
};

const ROUNDS: usize = 200;

/// Where the first of the peers stands among the variants; those before it are this layer and what never changes.
const FIRST_PEER: usize = 3;

fn main() -> Result<ExitCode, BoxError> {
    let runtime = Runtime::new()?;
    let (plain, kept) = runtime.block_on(async {
        let url = endpoint::start().await?;
        Ok::<_, BoxError>((without_copy(&url).await?, with_copy(&url).await?))
    })?;
    // Timed outside of a task: in one, tokio's locks make a caller wait that never yields.
    let _entered = runtime.enter();
    let mut report = Report::from_args();
    for version in versions::of_peers() {
        if env::args().any(|argument| argument == "--json") {
            println!("{}", json!({"version": version}));
        } else {
            report.say(version);
        }
    }
    compare(&mut report, "no copy kept", plain);
    let (ratio, note) = compare(&mut report, "copy kept", kept);
    report.row("request, copy kept, to the fastest peer", "<= 1.00", ratio, "ratio", &note);
    Ok(report.end())
}

async fn ours(url: &str) -> Result<TokenProvider, BoxError> {
    let client = ClientAuth::basic("bench", "secret");
    let provider = TokenProvider::new(OAuth2::client_credentials(TokenEndpoint::url(url), client).build()?);
    provider.init().await?;
    Ok(provider)
}

fn fixed() -> AddAuthorizationLayer {
    AddAuthorizationLayer::bearer(&secret()).as_sensitive(true)
}

async fn without_copy(url: &str) -> Result<Vec<Variant>, BoxError> {
    let inner = Inner::<BoxError>::new();
    Ok(vec![
        Variant::new("no layer", inner),
        Variant::new("tower-http, fixed header", fixed().layer(inner)),
        Variant::new("this layer", JwtRefreshLayer::new(ours(url).await?).retry(RetryPolicy::none()).layer(inner)),
        Variant::new("cf-gears-toolkit-auth", cf_gears::attaches(url).await?.layer(Inner::new())),
        Variant::new("google-cloud-auth", google_cloud::layer(url).await?.layer(inner)),
        Variant::new("kube-client, token file", kube::token_file(url).await?.layer(inner)),
        Variant::new("kube-client, exec plugin", kube::exec_plugin(url).await?.layer(inner)),
        Variant::new("by hand: RwLock, format!", by_hand::rw_lock(url).await?.layer(inner)),
        Variant::new("by hand: async Mutex", by_hand::mutex(url).await?.layer(inner)),
        Variant::new("by hand: watch", by_hand::watch(url).await?.layer(inner)),
    ])
}

// Around the auth layer, so that what is sent again carries the new token. Kube's own documentation has it inside, where the old one is sent again.
async fn with_copy(url: &str) -> Result<Vec<Variant>, BoxError> {
    let inner = Inner::<BoxError>::new();
    let keep = RetryLayer::new(Keep);
    Ok(vec![
        Variant::new("no layer", inner),
        Variant::new("tower::retry + fixed header", keep.layer(fixed().layer(inner))),
        Variant::new("this layer", JwtRefreshLayer::new(ours(url).await?).layer(inner)),
        Variant::new("cf-gears-toolkit-auth, auto refresh", cf_gears::resends(url).await?.layer(Inner::new())),
        Variant::new("retry + google-cloud-auth", keep.layer(google_cloud::layer(url).await?.layer(inner))),
        Variant::new("retry + kube-client, token file", keep.layer(kube::token_file(url).await?.layer(inner))),
        Variant::new("retry + kube-client, exec plugin", keep.layer(kube::exec_plugin(url).await?.layer(inner))),
        Variant::new("retry + RwLock, format!", keep.layer(by_hand::rw_lock(url).await?.layer(inner))),
        Variant::new("retry + async Mutex", keep.layer(by_hand::mutex(url).await?.layer(inner))),
        Variant::new("retry + watch", keep.layer(by_hand::watch(url).await?.layer(inner))),
    ])
}

/// Times all variants in turn, and answers this layer's ratio to the fastest peer.
fn compare(report: &mut Report, title: &str, mut variants: Vec<Variant>) -> (f64, String) {
    for variant in &mut variants {
        variant.check();
    }
    let names: Vec<_> = variants.iter().map(|variant| variant.name).collect();
    let mut variants: [Variant; 10] = variants.try_into().ok().expect("ten variants");
    let rounds = timing::in_turn(ROUNDS, variants.each_mut().map(Variant::round));

    report.say(format_args!("{title}, ns per request, and this layer's as a ratio to it:"));
    for (nth, name) in names.iter().enumerate() {
        let nanoseconds = rounds.median(nth) * 1e9;
        report.say(format_args!("  {name:<36} {nanoseconds:>6.0}   {:.2}", rounds.ratio(2, nth)));
        #[allow(clippy::cast_precision_loss, reason = "ten variants")]
        report.point(&format!("peers, {title}"), name, nth as f64, nanoseconds);
    }
    let (ratio, fastest) = (FIRST_PEER..names.len())
        .map(|nth| (rounds.ratio(2, nth), names[nth]))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .expect("there are peers");
    (ratio, format!("the fastest: {fastest}"))
}
