//! Where attachments are: a folder, or a bucket of a server that speaks S3.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

use super::ConfigError;

/// A folder, or `s3://bucket/prefix`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum AttachmentPlace {
    /// A folder.
    Folder(PathBuf),
    /// A bucket.
    Bucket(BucketPlace),
}

/// A part of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketPlace {
    /// The bucket's name.
    pub bucket: String,
    /// What the keys begin with; may be empty.
    pub prefix: String,
}

/// The text is neither.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("attachments are in a folder or in s3://bucket/prefix")]
pub struct NoPlace;

impl FromStr for AttachmentPlace {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.is_empty() { Err(NoPlace) } else { Ok(Self::Folder(text.into())) };
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if scheme != "s3" || bucket.is_empty() {
            return Err(NoPlace);
        }
        let (bucket, prefix) = (bucket.into(), prefix.trim_end_matches('/').into());
        Ok(Self::Bucket(BucketPlace { bucket, prefix }))
    }
}

impl TryFrom<String> for AttachmentPlace {
    type Error = NoPlace;

    fn try_from(text: String) -> Result<Self, NoPlace> {
        text.parse()
    }
}

impl fmt::Display for AttachmentPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Bucket(BucketPlace { bucket, prefix }) if prefix.is_empty() => {
                write!(f, "s3://{bucket}")
            }
            Self::Bucket(BucketPlace { bucket, prefix }) => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// How the bucket is reached; the names are those of the flags. What is left out comes from `AWS_…`.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct S3Settings {
    /// Server of the bucket, as `https://s3.example.org` [default: `AWS_ENDPOINT_URL`, or Amazon's of the region]
    #[arg(long, value_name = "URL", env = "TUCKSEAL_S3_ENDPOINT")]
    pub s3_endpoint: Option<String>,
    /// Region of the bucket [default: `AWS_REGION`, or us-east-1]
    #[arg(long, value_name = "NAME", env = "TUCKSEAL_S3_REGION")]
    pub s3_region: Option<String>,
    /// Id of the access key [default: `AWS_ACCESS_KEY_ID`, or what Amazon's machines get by themselves]
    #[arg(long, value_name = "ID", env = "TUCKSEAL_S3_ACCESS_KEY_ID")]
    pub s3_access_key_id: Option<String>,
    /// The secret access key, one line [default: `AWS_SECRET_ACCESS_KEY`]
    #[arg(long, value_name = "FILE", env = "TUCKSEAL_S3_SECRET_KEY_FILE")]
    pub s3_secret_key_file: Option<PathBuf>,
}

impl S3Settings {
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            s3_endpoint: self.s3_endpoint.or(other.s3_endpoint),
            s3_region: self.s3_region.or(other.s3_region),
            s3_access_key_id: self.s3_access_key_id.or(other.s3_access_key_id),
            s3_secret_key_file: self.s3_secret_key_file.or(other.s3_secret_key_file),
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.s3_access_key_id.is_some() != self.s3_secret_key_file.is_some() {
            return Err(ConfigError::HalfS3);
        }
        Ok(())
    }

    /// As lines of the table `[s3]`.
    pub(super) fn lines(&self) -> [(&'static str, Option<String>); 4] {
        let text = |setting: &Option<String>| setting.as_ref().map(|text| format!("{text:?}"));
        let file = self.s3_secret_key_file.as_ref();
        [
            ("s3_endpoint", text(&self.s3_endpoint)),
            ("s3_region", text(&self.s3_region)),
            ("s3_access_key_id", text(&self.s3_access_key_id)),
            ("s3_secret_key_file", file.map(|path| format!("{:?}", path.display().to_string()))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_is_a_folder_or_a_bucket_and_reads_as_it_was_written() {
        for text in ["attachments", "/srv/a", "s3://bucket", "s3://bucket/some/prefix"] {
            assert_eq!(text.parse::<AttachmentPlace>().unwrap().to_string(), text);
        }
        let Ok(AttachmentPlace::Bucket(place)) = "s3://b/p/q/".parse() else { panic!("a folder") };
        assert_eq!((place.bucket.as_str(), place.prefix.as_str()), ("b", "p/q"));
        for bad in ["", "s3://", "s3:///prefix", "gs://bucket"] {
            assert!(bad.parse::<AttachmentPlace>().is_err(), "{bad}");
        }
    }
}
