//! The client of a bucket: its settings, its patience, whom it trusts.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, S3ConditionalPut};
use object_store::client::{HttpClient, HttpConnector};
use object_store::{ClientOptions, RetryConfig, StaticCredentialProvider};
use zeroize::Zeroizing;

use super::BucketError;
use crate::config::{BucketPlace, S3Settings};
use crate::https;
use crate::names::Names;

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Time between two bytes of an answer.
const READ_PATIENCE: Duration = Duration::from_secs(15);
/// Time for a request with its repetitions.
const RETRY_PATIENCE: Duration = Duration::from_secs(20);
const RETRIES: usize = 3;

/// What the settings leave open comes from AWS_… of the environment.
pub(super) fn builder(
    place: &BucketPlace,
    settings: &S3Settings,
) -> Result<AmazonS3Builder, BucketError> {
    let retry = RetryConfig {
        max_retries: RETRIES,
        retry_timeout: RETRY_PATIENCE,
        ..RetryConfig::default()
    };
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&place.bucket)
        .with_retry(retry)
        // Two writers are told apart by it: no variable of the environment may turn it off.
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_http_connector(Connector(client()?));
    if let Some(endpoint) = &settings.s3_endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &settings.s3_region {
        builder = builder.with_region(region);
    }
    if let (Some(id), Some(path)) = (&settings.s3_access_key_id, &settings.s3_secret_key_file) {
        let failed = |source| BucketError::SecretKey { path: path.clone(), source };
        let secret = Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?);
        let (key_id, secret_key) = (id.clone(), secret.trim().to_owned());
        let credential = AwsCredential { key_id, secret_key, token: None };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
    }
    let plain = builder
        .get_config_value(&AmazonS3ConfigKey::Endpoint)
        .is_some_and(|endpoint| endpoint.starts_with("http://"));
    Ok(builder.with_allow_http(plain))
}

fn client() -> Result<reqwest::Client, BucketError> {
    let client = reqwest::Client::builder()
        .dns_resolver(Names::default())
        .tls_backend_preconfigured(https::client_config()?)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_PATIENCE)
        .read_timeout(READ_PATIENCE);
    Ok(client.build()?)
}

/// Lends `object_store` a client that trusts what the rest of the server trusts.
#[derive(Debug)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}
