//! Object stores by address: plain HTTP servers and S3.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::http::HttpBuilder;
use object_store::path::Path as Location;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use crate::limits;

/// The store behind an address, and the prefix in it. Nothing is asked of it yet.
pub(super) fn store(place: &str) -> Result<(Arc<dyn ObjectStore>, Location), String> {
    // Whoever comes first installs it; the crate's own choice must not depend on who that was.
    drop(rustls::crypto::ring::default_provider().install_default());
    let options = ClientOptions::new()
        .with_allow_http(true)
        .with_connect_timeout(Duration::from_secs(limits::CONNECT_S))
        .with_timeout(Duration::from_secs(limits::FETCH_S));
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: limits::FETCH_RETRIES,
        retry_timeout: Duration::from_secs(limits::FETCH_S),
    };
    let failed = |error: object_store::Error| error.to_string();
    match place.split_once("://") {
        Some(("http" | "https", _)) => {
            let store = HttpBuilder::new().with_url(place).with_client_options(options).with_retry(retry);
            Ok((Arc::new(store.build().map_err(failed)?), Location::default()))
        }
        Some(("s3", rest)) => {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let store = AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_client_options(options)
                .with_retry(retry)
                .build()
                .map_err(failed)?;
            let prefix = Location::parse(prefix.trim_end_matches('/')).map_err(|error| error.to_string())?;
            Ok((Arc::new(store), prefix))
        }
        _ => Err("expected a folder, http://, https:// or s3://".to_owned()),
    }
}
