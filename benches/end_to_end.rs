//! Requests over loopback with this layer, with a fixed header, and without any: how many a second, and how long the slowest hundredth takes.
//!
//! `cargo bench --bench end_to_end`. The server is a process of its own, this program again, on one thread; so is the client. The variants of a
//! protocol share their connections' kind and number, and take turns in short rounds. HTTP/2 and gRPC have one connection.

mod support;

use axum::{Router, routing::post};
use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    env,
    error::Error,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};
use support::{
    Report,
    request::{Req, provider, request, secret},
    timing::median,
};
use tokio::{net::TcpListener, runtime::Builder};
use tonic::{client::GrpcService, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{Layer, Service, ServiceExt};
use tower_http::set_header::SetRequestHeaderLayer;
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, Origin, RetryPolicy};

const ROUNDS: usize = 40;
/// At a time, over one connection or as many as that.
const CALLERS: usize = 32;
/// Each caller's, in a round.
const REQUESTS: usize = 50;
const VARIANTS: [&str; 4] = ["no layer", "fixed header", "this layer, no copy kept", "this layer"];

/// Of one round: requests per second, and the 99th percentile in seconds.
type Figures = [(f64, f64); VARIANTS.len()];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    if env::args().any(|argument| argument == "--serve") {
        runtime.block_on(serve())?;
        return Ok(ExitCode::SUCCESS);
    }
    let server = Server::start()?;
    let report = Report::from_args();
    runtime.block_on(async {
        for (protocol, http2) in [("HTTP/1.1", false), ("HTTP/2", true)] {
            let mut connector = HttpConnector::new();
            // Else a small body waits 40 ms for the acknowledgement of its head, with the layer or without.
            connector.set_nodelay(true);
            let client = Client::builder(TokioExecutor::new()).http2_only(http2).build::<_, Full<Bytes>>(connector);
            let uri: Uri = format!("http://{}/api/v1/jobs/1?wait=60", server.address).parse()?;
            let plain = Http { service: client.clone(), uri: uri.clone() };
            let with_header = Http { service: fixed().layer(client.clone()), uri: uri.clone() };
            let no_copy = JwtRefreshLayer::new(provider()).retry(RetryPolicy::none());
            let no_copy = Http { service: no_copy.layer(client.clone()), uri: uri.clone() };
            let ours = Http { service: JwtRefreshLayer::new(provider()).layer(client), uri };
            compare(&report, protocol, &plain, &with_header, &no_copy, &ours).await;
        }
        let origin = format!("http://{}", server.address);
        let channel = Channel::from_shared(origin.clone())?.connect().await?;
        let layer = JwtRefreshLayer::new(provider()).assume_origin(Origin::parse(&origin)?);
        let plain = Grpc(channel.clone());
        let with_header = Grpc(fixed().layer(channel.clone()));
        let no_copy = Grpc(layer.clone().retry(RetryPolicy::none()).layer(channel.clone()));
        compare(&report, "gRPC", &plain, &with_header, &no_copy, &Grpc(layer.layer(channel))).await;
        Ok::<_, Box<dyn Error>>(())
    })?;
    Ok(report.end())
}

fn fixed() -> SetRequestHeaderLayer<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", secret())).expect("legal");
    value.set_sensitive(true);
    SetRequestHeaderLayer::overriding(AUTHORIZATION, value)
}

/// Answers all three protocols, and says where on its standard output.
async fn serve() -> Result<(), Box<dyn Error>> {
    let (_health, health) = tonic_health::server::health_reporter();
    let answer = |_whole_body: Bytes| async { ([("content-type", "application/json")], r#"{"state":"done"}"#) };
    let app = Router::new().route("/api/v1/jobs/{id}", post(answer));
    let app = app.merge(tonic::service::Routes::new(health).into_axum_router());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    Ok(axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true))), app).await?)
}

struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start() -> Result<Self, Box<dyn Error>> {
        let mut process = Command::new(env::current_exe()?).arg("--serve").stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
        Ok(Self { process, address: line.trim().parse()? })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A way to send one request and read its answer.
trait Sender {
    async fn send(&mut self);
}

#[derive(Clone)]
struct Http<S> {
    service: S,
    uri: Uri,
}

impl<S, B> Sender for Http<S>
where
    S: Service<Req, Response = http::Response<B>>,
    S::Error: std::fmt::Debug,
    B: http_body::Body + Unpin,
    B::Error: std::fmt::Debug,
{
    async fn send(&mut self) {
        let mut request = request();
        *request.uri_mut() = self.uri.clone();
        let response = self.service.ready().await.expect("ready").call(request).await.expect("an answer");
        assert!(response.status().is_success());
        response.into_body().collect().await.expect("a body");
    }
}

#[derive(Clone)]
struct Grpc<S>(S);

impl<S, B> Sender for Grpc<S>
where
    S: Service<Request<tonic::body::Body>, Response = http::Response<B>>
        + GrpcService<tonic::body::Body, ResponseBody = B>
        + Clone,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    async fn send(&mut self) {
        let call = HealthCheckRequest { service: String::new() };
        HealthClient::new(self.0.clone()).check(call).await.expect("an answer");
    }
}

/// Rate in requests per second, and the 99th percentile in seconds, of a round of all callers.
async fn round<S: Sender + Clone>(sender: &S) -> (f64, f64) {
    let start = Instant::now();
    let callers = (0..CALLERS).map(|_| {
        let mut sender = sender.clone();
        async move {
            let mut times = Vec::with_capacity(REQUESTS);
            for _ in 0..REQUESTS {
                let start = Instant::now();
                sender.send().await;
                times.push(start.elapsed());
            }
            times
        }
    });
    let mut times: Vec<Duration> = futures_util::future::join_all(callers).await.into_iter().flatten().collect();
    let took = start.elapsed().as_secs_f64();
    times.sort_unstable();
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    let rate = times.len() as f64 / took;
    (rate, times[times.len() * 99 / 100].as_secs_f64())
}

async fn compare<A, B, C, D>(report: &Report, protocol: &str, plain: &A, fixed: &B, no_copy: &C, ours: &D)
where
    A: Sender + Clone,
    B: Sender + Clone,
    C: Sender + Clone,
    D: Sender + Clone,
{
    let mut rounds = Vec::with_capacity(ROUNDS);
    for nth in 0..ROUNDS + 4 {
        let mut figures = [(0.0, 0.0); VARIANTS.len()];
        for turn in 0..VARIANTS.len() {
            let variant = (nth + turn) % VARIANTS.len();
            figures[variant] = match variant {
                0 => round(plain).await,
                1 => round(fixed).await,
                2 => round(no_copy).await,
                _ => round(ours).await,
            };
        }
        // The first connect and warm up.
        if nth >= 4 {
            rounds.push(figures);
        }
    }
    report.say(format_args!(
        "{protocol}: requests per second, as a ratio to the fixed header; 99th percentile in µs, its ratio"
    ));
    for (variant, name) in VARIANTS.iter().enumerate() {
        let of = |figure: &dyn Fn(&Figures) -> f64| median(rounds.iter().map(figure).collect());
        let (rate, p99) = (of(&|round| round[variant].0), of(&|round| round[variant].1 * 1e6));
        let (rates, p99s) = (of(&|round| round[variant].0 / round[1].0), of(&|round| round[variant].1 / round[1].1));
        report.say(format_args!("  {name:<24} {rate:>8.0} {rates:.3}   {p99:>6.0} {p99s:.3}"));
        #[allow(clippy::cast_precision_loss, reason = "four")]
        let x = variant as f64;
        report.point(&format!("end to end, {protocol}, requests per second"), name, x, rate);
        report.point(&format!("end to end, {protocol}, 99th percentile, µs"), name, x, p99);
    }
}
