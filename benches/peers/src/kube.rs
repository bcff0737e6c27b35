//! The auth layer of a `Config`, for its two usual refreshing credentials: the file of a service account in a pod, and an exec plugin in a kubeconfig.

use crate::by_hand::fetch;
use kube_client::{
    Config,
    client::{ConfigExt, middleware::AuthLayer},
    config::{AuthInfo, ExecConfig},
};
use serde_json::json;
use std::io::Write;
use tempfile::NamedTempFile;
use tower::BoxError;

fn layer(auth_info: AuthInfo) -> Result<AuthLayer, BoxError> {
    let mut config = Config::new("https://api.example.com".parse()?);
    config.auth_info = auth_info;
    Ok(config.auth_layer()?.ok_or("no auth layer")?)
}

/// Reads the file again each minute at most, and this file is gone by then; it goes on with what it has.
pub async fn token_file(url: &str) -> Result<AuthLayer, BoxError> {
    let mut file = NamedTempFile::new()?;
    file.write_all(fetch(url).await?.value.as_bytes())?;
    layer(AuthInfo { token_file: Some(file.path().to_str().ok_or("no UTF-8")?.into()), ..Default::default() })
}

pub async fn exec_plugin(url: &str) -> Result<AuthLayer, BoxError> {
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": fetch(url).await?.value, "expirationTimestamp": "2100-01-01T00:00:00Z"},
    });
    let mut file = NamedTempFile::new()?;
    file.write_all(credential.to_string().as_bytes())?;
    let plugin = ExecConfig {
        api_version: Some("client.authentication.k8s.io/v1".into()),
        command: Some("cat".into()),
        args: Some(vec![file.path().to_str().ok_or("no UTF-8")?.into()]),
        ..serde_json::from_value(json!({}))?
    };
    layer(AuthInfo { exec: Some(plugin), ..Default::default() })
}
