//! Three clients poll one service through the same faults: this crate, and two designs that are often written by hand.
//!
//! `cargo run --release --example quickstart` starts the service on loopback, breaks it in three ways, prints what each client's
//! callers saw, and fails if that is not what it claims. `-- --help` shows the options; two of them poll a real service instead.

mod clients;
mod options;
mod poll;
mod report;
#[path = "../support/mod.rs"]
mod support;

use clients::{Counted, Endpoint, Gauge, Mutex, Naive};
use http::HeaderName;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy, rt::TokioExecutor};
use options::{Mode, Options, Real};
use poll::{Plan, Tally};
use report::{Others, Progress, Report, Row};
use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use support::{Faced, Faults, Server};
use tokio::task::JoinSet;
use tower::Layer;
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, Placement, TokenProvider, source::Exchange};

/// From when on, in parts of the run, each fault waits for its moment. It comes within 1.9 s and is over 0.8 s later, so each has a lifetime of its
/// own even in a run of 10 s.
const DOWN: f64 = 0.1;
const SILENT: f64 = 0.4;
const REVOKED: f64 = 0.7;

#[tokio::main]
async fn main() -> ExitCode {
    let options = match options::read() {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(mistake) => {
            eprintln!("quickstart: {mistake}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    let broken = match &options.mode {
        Mode::Loopback => loopback(&options).await,
        Mode::Real(service) => real(&options, service).await,
    };
    match broken {
        Ok(broken) if broken.is_empty() => ExitCode::SUCCESS,
        Ok(broken) => {
            broken.iter().for_each(|claim| eprintln!("quickstart: this does not hold: {claim}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("quickstart: {}", report::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// All three clients, through the faults. Returns what does not hold.
async fn loopback(options: &Options) -> Result<Vec<String>, BoxError> {
    // A connection has two ends, and both are ours.
    open_files(options.pollers, 6)?;
    if !options.json {
        report::explain(options);
    }
    let (mut report, mut faced) = compare(options).await?;
    if report.stalls_longer() {
        // A busy machine may stop a thread for as long as that, once, whoever runs in it. A client that stalls does so again.
        eprintln!("quickstart: ours stalled longer than mutex; once more, to tell it from a machine that is busy");
        (report, faced) = compare(options).await?;
    }
    report.print(options.json)?;
    Ok(report.broken_claims(faced))
}

/// One run, and what `ours` met in it.
async fn compare(options: &Options) -> Result<(Report, Faced), BoxError> {
    let server = support::serve(&["ours", "naive", "mutex"]).await?;
    let gauges: [Arc<Gauge>; 3] = Default::default();
    let tallies: [Arc<Tally>; 3] = Default::default();

    // What suits tokens of 2 s; the defaults suit tokens of minutes to days.
    let provider = TokenProvider::builder()
        .refresh_before(Duration::from_secs(1))
        .min_interval(Duration::from_millis(50))
        .fetch_timeout(clients::TIMEOUT)
        .backoff(Duration::from_millis(50), Duration::from_millis(500))
        .build(source(&server.auth_url(), "ours", &gauges[0])?)?;
    provider.init().await?;
    let ours = JwtRefreshLayer::new(provider).layer(clients::http());

    let endpoint = |key, gauge: &Arc<Gauge>| Endpoint {
        http: clients::http(),
        url: server.auth_url(),
        key,
        gauge: Arc::clone(gauge),
    };
    let naive = Naive::start(endpoint("naive", &gauges[1])).await?;
    let naive = clients::with_token(clients::http(), move || std::future::ready(naive.token()));
    let mutex = Mutex::start(endpoint("mutex", &gauges[2])).await?;
    let mutex = clients::with_token(clients::http(), move || {
        let mutex = Arc::clone(&mutex);
        async move { mutex.token().await }
    });

    let start = Instant::now();
    let at = |part: f64| start + options.run().mul_f64(part);
    server.plan(Faults { down_from: at(DOWN), silent_from: at(SILENT) });
    let revoked = tokio::spawn(revoke(server.clone(), at(REVOKED)));
    let plan = Plan { uri: server.api_url().parse()?, until: at(1.0), pause: Duration::ZERO, pollers: options.pollers };
    let progress =
        Progress::start(["ours", "naive", "mutex"].into_iter().zip(tallies.clone()).collect(), options.seconds);
    let mut pollers = JoinSet::new();
    poll::spawn(&mut pollers, &ours, &plan, &tallies[0]);
    poll::spawn(&mut pollers, &naive, &plan, &tallies[1]);
    poll::spawn(&mut pollers, &mutex, &plan, &tallies[2]);
    pollers.join_all().await;
    revoked.await?;
    drop(progress);

    let row = |client: usize| Row::new(&tallies[client], &gauges[client]);
    let report =
        Report { seconds: options.seconds, ours: row(0), others: Some(Others { naive: row(1), mutex: row(2) }) };
    Ok((report, server.faced("ours")))
}

/// From `when` on, as soon as no fetch is under way.
async fn revoke(server: Server, when: Instant) {
    tokio::time::sleep_until(when.into()).await;
    while !server.revoke_all() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A real service, through this crate alone and with its default settings. Returns what does not hold.
async fn real(options: &Options, service: &Real) -> Result<Vec<String>, BoxError> {
    open_files(options.pollers, 1)?;
    let (gauge, tally): (Arc<Gauge>, Arc<Tally>) = Default::default();
    let provider = TokenProvider::new(source(&service.auth_url, &service.key, &gauge)?);
    provider.init().await?;
    if !options.json {
        report::explain_real(options, &service.auth_url);
    }

    let tls = HttpsConnectorBuilder::new().with_provider_and_native_roots(rustls::crypto::ring::default_provider())?;
    let http = legacy::Client::builder(TokioExecutor::new()).build(tls.https_or_http().enable_http1().build());
    let placement = service.token_header.clone().map_or_else(Placement::bearer, Placement::header);
    let ours = JwtRefreshLayer::new(provider).place(placement).layer(http);

    let plan = Plan {
        uri: service.api_url.clone(),
        until: Instant::now() + options.run(),
        pause: Duration::from_secs(1),
        pollers: options.pollers,
    };
    let progress = Progress::start(vec![("ours", Arc::clone(&tally))], options.seconds);
    let mut pollers = JoinSet::new();
    poll::spawn(&mut pollers, &ours, &plan, &tally);
    pollers.join_all().await;
    drop(progress);

    let report = Report { seconds: options.seconds, ours: Row::new(&tally, &gauge), others: None };
    report.print(options.json)?;
    Ok(report.broken_claims(Faced::default()))
}

/// Sees to it that they may be opened: some systems allow 256 unless asked, and a server that cannot accept would let its clients wait.
fn open_files(pollers: usize, each: u64) -> Result<(), BoxError> {
    let files = u64::try_from(pollers)? * each + 64;
    match rlimit::increase_nofile_limit(files)? {
        limit if limit < files => Err(format!(
            "{pollers} pollers need {files} open files, and the limit is {limit}: raise it with `ulimit -n`, or take fewer pollers"
        )
        .into()),
        _ => Ok(()),
    }
}

fn source(url: &str, key: &str, gauge: &Arc<Gauge>) -> Result<Counted, BoxError> {
    let source = Exchange::post(url).header(HeaderName::from_static("x-api-key"), key).build()?;
    Ok(Counted { source, gauge: Arc::clone(gauge) })
}
