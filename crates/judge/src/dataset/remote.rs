//! Object stores by address: plain HTTP servers, S3, and Google's storage.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path as Location;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use crate::limits;

/// How the names of a cloud's settings begin.
const AWS: &str = "AWS_";
const GOOGLE: &str = "GOOGLE_";

const EXPECTED: &str = "expected a folder, http://, https://, s3:// or gs://";

/// Settings that say who asks; without any of them an S3 store is asked unsigned, as public buckets are.
const WHO_ASKS_S3: [AmazonS3ConfigKey; 6] = [
    AmazonS3ConfigKey::AccessKeyId,
    AmazonS3ConfigKey::WebIdentityTokenFile,
    AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
    AmazonS3ConfigKey::ContainerCredentialsFullUri,
    AmazonS3ConfigKey::MetadataEndpoint,
    AmazonS3ConfigKey::SkipSignature,
];

/// The same for Google's storage.
const WHO_ASKS_GOOGLE: [GoogleConfigKey; 5] = [
    GoogleConfigKey::ServiceAccount,
    GoogleConfigKey::ServiceAccountKey,
    GoogleConfigKey::ApplicationCredentials,
    GoogleConfigKey::BearerToken,
    GoogleConfigKey::SkipSignature,
];

const UNSIGNED_S3: &str = "asked unsigned, as no AWS_… variable says who asks: AWS_ACCESS_KEY_ID and \
    AWS_SECRET_ACCESS_KEY hold a key, and AWS_SKIP_SIGNATURE=false uses the role of this machine";
const UNSIGNED_GOOGLE: &str = "asked unsigned, as no GOOGLE_… variable says who asks: GOOGLE_SERVICE_ACCOUNT names the file of \
    a key, and GOOGLE_SKIP_SIGNATURE=false uses the role of this machine";

/// What helps where a store that is asked unsigned refuses.
pub(super) fn unsigned_hint(place: &str, settings: &[(String, String)]) -> Option<&'static str> {
    match place.split_once("://") {
        Some(("s3", _)) => (!says_who_asks(settings, AWS, &WHO_ASKS_S3)).then_some(UNSIGNED_S3),
        Some(("gs", _)) => (!says_who_asks(settings, GOOGLE, &WHO_ASKS_GOOGLE)).then_some(UNSIGNED_GOOGLE),
        _ => None,
    }
}

/// The settings of one cloud, by the prefix of their names; unknown ones are passed over.
fn settings_of<'a, K: FromStr>(
    settings: &'a [(String, String)],
    prefix: &'static str,
) -> impl Iterator<Item = (K, &'a String)> {
    let named = settings.iter().filter(move |(name, _)| name.starts_with(prefix));
    named.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)))
}

/// Whether any of the settings says who asks. Where none does, a store is asked unsigned: else the address of a
/// cloud's machines would be asked for a key, for minutes, wherever this is none of them.
fn says_who_asks<K: FromStr + PartialEq>(
    settings: &[(String, String)],
    prefix: &'static str,
    who: &[K],
) -> bool {
    settings_of(settings, prefix).any(|(key, _): (K, _)| who.contains(&key))
}

/// A bucket of S3's.
fn s3(bucket: &str, settings: &[(String, String)]) -> AmazonS3Builder {
    let unsigned = !says_who_asks(settings, AWS, &WHO_ASKS_S3);
    let builder = AmazonS3Builder::new().with_bucket_name(bucket).with_skip_signature(unsigned);
    settings_of(settings, AWS).fold(builder, |builder, (key, value)| builder.with_config(key, value))
}

/// A bucket of Google's.
fn google(bucket: &str, settings: &[(String, String)]) -> GoogleCloudStorageBuilder {
    let unsigned = !says_who_asks(settings, GOOGLE, &WHO_ASKS_GOOGLE);
    let builder = GoogleCloudStorageBuilder::new().with_bucket_name(bucket).with_skip_signature(unsigned);
    settings_of(settings, GOOGLE).fold(builder, |builder, (key, value)| builder.with_config(key, value))
}

/// The store behind an address, and the prefix in it. Nothing is asked of it yet.
pub(super) fn store(
    place: &str,
    settings: &[(String, String)],
) -> Result<(Arc<dyn ObjectStore>, Location), String> {
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
    let Some((scheme, rest)) = place.split_once("://") else { return Err(EXPECTED.to_owned()) };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    // A plain server's folder stands in its address, a bucket's beside it.
    let (store, prefix): (Result<Arc<dyn ObjectStore>, _>, _) = match scheme {
        "http" | "https" => {
            let builder = HttpBuilder::new().with_url(place).with_client_options(options).with_retry(retry);
            (builder.build().map(|store| Arc::new(store) as _), "")
        }
        "s3" => {
            let builder = s3(bucket, settings).with_client_options(options).with_retry(retry);
            (builder.build().map(|store| Arc::new(store) as _), prefix)
        }
        "gs" => {
            let builder = google(bucket, settings).with_client_options(options).with_retry(retry);
            (builder.build().map(|store| Arc::new(store) as _), prefix)
        }
        _ => return Err(EXPECTED.to_owned()),
    };
    let prefix = Location::parse(prefix.trim_end_matches('/')).map_err(|error| error.to_string())?;
    Ok((store.map_err(|error| error.to_string())?, prefix))
}
