//! One run: build everything, let it go wrong, let it calm down, and look whether anything is left.

use crate::{
    api::Api,
    authority::Authority,
    callers::Callers,
    fetches::{BACKOFF, FETCH_TIMEOUT, MIN_INTERVAL, Watch},
    issuer::{CREDENTIAL, Issuer},
    options::Options,
    proxy::Proxy,
    report::{ISSUER, NETWORK, Report},
    stacks::Client,
    weather::Weather,
    world::{Phase, STACKS, World, lock},
};
use fastrand::Rng;
use http::HeaderName;
use std::{sync::Arc, time::Duration};
use tokio::{runtime::Handle, task::JoinSet, time::sleep};
use tower::Layer;
use tower_jwt_refresh::{BoxError, TokenProvider, source::Exchange};

/// A fetch that hangs is given up before the provider has to.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(2);
/// Clients of each kind, each with a pool of connections of its own.
const POOLS: usize = 4;
const CALM: Duration = Duration::from_secs(2);
/// Rough, since the allocator keeps what it had: more than this, and more than half as much again, is growth.
const GROWTH: usize = 64 << 20;

/// `apart` is the issuer's runtime.
pub async fn run(world: &Arc<World>, options: &Options, apart: &Handle) -> Result<(), BoxError> {
    let mut rng = Rng::with_seed(options.seed);
    let authority = Arc::new(Authority::new()?);
    let issuer = Issuer::start(world, &authority, rng.fork(), apart)?;
    let api = Api::start(world, &authority, rng.fork(), false)?;
    let foreign = Api::start(world, &authority, rng.fork(), true)?;
    let proxy = |stack| Proxy::start(world, stack, api.door.port, rng.fork());
    let proxies: Vec<_> = STACKS.map(proxy).into_iter().collect::<Result<_, _>>()?;
    let exchange = Exchange::post(issuer.url())
        .header(HeaderName::from_static("x-api-key"), CREDENTIAL)
        .root_certificates(&authority.pem)
        .no_proxy()
        .timeout(EXCHANGE_TIMEOUT)
        .build()?;
    let provider = TokenProvider::builder()
        .clock(world.clock.clone())
        .min_interval(MIN_INTERVAL)
        .fetch_timeout(FETCH_TIMEOUT)
        .backoff(BACKOFF.0, BACKOFF.1)
        .build(Watch(Arc::clone(world), apart.clone()).layer(exchange))?;
    provider.init().await?;

    let (callers, mut calling) = (Callers::new(world), JoinSet::new());
    for (stack, proxy) in STACKS.iter().zip(&proxies) {
        for pool in 0..POOLS {
            let ports = (proxy.door.port, foreign.door.port);
            let client = Client::new(*stack, world, &authority, &provider, ports).await?;
            for _ in (pool..options.callers).step_by(POOLS * STACKS.len()) {
                calling.spawn(callers.clone().one(*stack, client.clone(), rng.fork()));
            }
        }
    }
    let weather = Weather { world: Arc::clone(world), api, issuer, proxies, provider };
    let (before, after) = chaos(&weather, &mut rng, options.chaos).await?;
    memory_is_flat(world, before, after);
    calm(&weather, &callers).await;

    world.enter(Phase::Over);
    while let Some(ended) = calling.join_next().await {
        ended?;
    }
    fetches_are_bounded(world);
    if world.report.counted(NETWORK, Report::CONTROL) == 0 {
        world.breaks("the proxies would see a token in plain text", "they did not see the server's name either");
    }
    weather.api.kill().await;
    foreign.kill().await;
    weather.issuer.stop().await;
    for proxy in &weather.proxies {
        proxy.shut().await;
    }
    lock(&world.background).abort_all();
    Ok(())
}

/// What is in memory once all is under way, and at the end.
async fn chaos(weather: &Weather, rng: &mut Rng, span: Duration) -> Result<(Option<usize>, Option<usize>), BoxError> {
    let until = weather.world.real() + span;
    let connections = weather.clone().befalls_connections(rng.fork(), until);
    let tokens = weather.clone().befalls_tokens(rng.fork(), until);
    let memory = async {
        sleep(span / 3).await;
        resident(&weather.world)
    };
    let (connections, (), memory) = tokio::join!(connections, tokens, memory);
    connections?;
    Ok((memory, resident(&weather.world)))
}

async fn calm(weather: &Weather, callers: &Callers) {
    let world = &weather.world;
    world.enter(Phase::Settling);
    // Whoever was hit gets to know it.
    while callers.under_way(Phase::Chaos) > 0 {
        sleep(Duration::from_millis(50)).await;
    }
    sleep(Duration::from_secs(2)).await;
    if !weather.heal().await {
        world.breaks("once it is calm, every call succeeds", "no token can be had");
    }
    // The token that was just fetched is nothing that those who wait for the one before may miss.
    while callers.under_way(Phase::Settling) == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    world.enter(Phase::Calm);
    sleep(CALM / 2).await;
    weather.revoke();
    sleep(CALM / 2).await;
}

fn fetches_are_bounded(world: &World) {
    let (asked, came) = (world.fetches.count(), world.report.counted(ISSUER, "requests at the endpoint"));
    // A jump of the clock ends an interval at once.
    let most = world.real().as_millis() / MIN_INTERVAL.as_millis() + 1 + u128::from(world.jumps());
    if came > asked as u64 || asked as u128 > most {
        world.breaks("fetches are bounded", format!("{came} came of {asked}, {most} were allowed"));
    }
}

fn memory_is_flat(world: &World, before: Option<usize>, after: Option<usize>) {
    let Some((before, after)) = before.zip(after) else { return };
    println!("resident memory without the books: {} MB, then {} MB", before >> 20, after >> 20);
    if after > before + before / 2 + GROWTH {
        world.breaks("memory does not grow", format!("from {before} to {after} bytes"));
    }
}

/// In bytes, where the system says so; without the books, which grow with the calls.
fn resident(world: &World) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: usize = line.split_whitespace().next()?.parse().ok()?;
    Some((kilobytes << 10).saturating_sub(world.bytes()))
}

/// Everybody has left: no task is to be there any more.
pub async fn nothing_is_left(world: &World) {
    let metrics = Handle::current().metrics();
    for _ in 0..100 {
        if metrics.num_alive_tasks() == 0 {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    world.breaks("no task is left at the end", format!("{} are", metrics.num_alive_tasks()));
}
