use object_store::{CredentialProvider, Error, gcp::GcpCredential};
use std::sync::Arc;
use tower_jwt_refresh::TokenProvider;

/// `GoogleCloudStorageBuilder::new().with_credentials(Arc::new(Credentials(provider)))`
#[derive(Debug)]
pub struct Credentials(pub TokenProvider);

#[async_trait::async_trait]
impl CredentialProvider for Credentials {
    type Credential = GcpCredential;

    async fn get_credential(&self) -> Result<Arc<GcpCredential>, Error> {
        let token = self.0.token().await.map_err(|error| Error::Generic { store: "gcs", source: error.into() })?;
        Ok(Arc::new(GcpCredential { bearer: token.expose_secret().to_owned() }))
    }
}
