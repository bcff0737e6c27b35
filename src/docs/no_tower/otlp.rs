use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithTonicConfig};
use tower_jwt_refresh::{TokenProvider, clients::TokenInterceptor};

/// Exports spans with a token that stays fresh. Call `provider.init()` first.
pub fn exporter(endpoint: &str, provider: TokenProvider) -> Result<SpanExporter, ExporterBuildError> {
    SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_interceptor(TokenInterceptor::new(provider))
        .build()
}
