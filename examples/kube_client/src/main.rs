//! A kube client under the layer, against an API server on loopback: `cargo run --manifest-path examples/kube_client/Cargo.toml`.

mod client;
mod server;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Config,
    api::{ListParams, ObjectMeta, PostParams},
};
use server::Server;
use tower_jwt_refresh::{BoxError, TokenProvider, TokenRequest};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = Server::default();
    let url = server.start().await?;

    let issuer = server.clone();
    let provider = TokenProvider::new(tower::service_fn(move |_: TokenRequest| {
        let token = issuer.issue();
        async { token }
    }));
    provider.init().await?;
    let client = client::client(Config::new(url.parse()?), provider)?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);

    for name in ["first", "second"] {
        let map = ConfigMap {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            ..ConfigMap::default()
        };
        maps.create(&PostParams::default(), &map).await?;
        println!("created the config map `{name}`");
        if name == "first" {
            server.revoke_all();
            println!("all tokens are revoked");
        }
    }
    let all = maps.list(&ListParams::default()).await?;
    let inner = server.inner();
    println!(
        "listed {} config maps; the server refused {} of {} requests, and kube saw none of that ({} tokens were fetched)",
        all.items.len(),
        inner.refused,
        inner.requests,
        inner.fetches
    );
    Ok(())
}
