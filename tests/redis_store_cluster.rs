//! `RedisStore` in a Redis cluster, of one node.
#![cfg(unix)]

#[path = "support/redis.rs"]
mod server;

use redis::{ProtocolVersion, cluster::ClusterClientBuilder};
use server::{Redis, port, soon, until};
use std::time::Duration;
use tower_jwt_refresh::store::{RedisStore, StoreError, TokenStore};

const KEY: &str = "token:api";
const LONG: Duration = Duration::from_secs(300);

#[tokio::test]
async fn a_cluster_keeps_the_token_and_tells_who_waits() {
    let [port, bus] = [port(), port()].map(|port| port.to_string());
    let redis = Redis::with(&[
        "--cluster-enabled",
        "yes",
        "--port",
        &port,
        "--cluster-port",
        &bus,
        "--cluster-announce-ip",
        "127.0.0.1",
    ]);
    redis.run::<()>("CLUSTER ADDSLOTSRANGE 0 16383");
    until(|| redis.run::<String>("CLUSTER INFO").contains("cluster_state:ok")).await;
    for protocol in [ProtocolVersion::RESP3, ProtocolVersion::RESP2] {
        let store = || {
            let client = ClusterClientBuilder::new([format!("redis://127.0.0.1:{port}")]).use_protocol(protocol);
            RedisStore::new(client.build().unwrap(), KEY).with_lease(LONG)
        };
        let (a, b) = (store(), store());
        let mut lock = soon(a.lock(Duration::ZERO)).await.unwrap();
        let (waiter, before) = (b.clone(), redis.scripts_run());
        let waits = tokio::spawn(async move { waiter.lock(LONG).await.map(drop) });
        // With RESP2 it cannot listen, and asks again and again.
        until(|| redis.scripts_run() == before + 2).await;
        lock.save(b"value").await.unwrap();
        if protocol == ProtocolVersion::RESP3 {
            assert!(matches!(soon(waits).await.unwrap(), Err(StoreError::Busy)), "it looks again");
            lock.unlock().await;
        } else {
            lock.unlock().await;
            soon(waits).await.unwrap().unwrap();
        }
        assert_eq!(soon(b.load()).await.unwrap().value().unwrap(), b"value");
    }
}
