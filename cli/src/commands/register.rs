//! `tuckseal register NAME`: makes the profile.

use super::Error;
use std::path::{Path, PathBuf};
use tuckseal::PublicKey;
use tuckseal_client::{Client, Registration};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// What others will call you: 1 to 32 of a-z 0-9 _ . -, a letter first
    name: String,
    /// The server
    #[arg(
        long,
        value_name = "URL",
        env = "TUCKSEAL_SERVER",
        default_value = "http://127.0.0.1:8080"
    )]
    server: String,
    /// The server's trust root, 33 bytes in hex; without it the server's word is taken, once
    #[arg(long, value_name = "HEX", env = "TUCKSEAL_TRUST_ROOT")]
    trust_root: Option<String>,
    /// Certificate of the server's own authority in PEM; kept in the profile, which then trusts no other
    #[arg(long, value_name = "FILE", env = "TUCKSEAL_CA")]
    ca: Option<PathBuf>,
}

pub(crate) async fn run(folder: &Path, options: Options) -> Result<(), Error> {
    let trust_root = options.trust_root.as_deref().map(trust_root).transpose()?;
    let ca = options.ca.as_deref().map(super::ca::read).transpose()?;
    let registration = Registration { server: options.server, name: options.name, trust_root, ca };
    let client = Client::register(folder, registration).await?;
    print_line!("registered as {} at {}", client.name(), client.server());
    print_line!("account       {}", client.account());
    print_line!("trust root    {}", hex::encode(client.trust_root().serialize()));
    print_line!("profile       {}", folder.display());
    Ok(())
}

fn trust_root(text: &str) -> Result<PublicKey, Error> {
    let bytes = hex::decode(text.trim()).map_err(|_| Error::TrustRoot)?;
    if bytes.len() != PublicKey::SERIALIZED_LEN {
        return Err(Error::TrustRoot);
    }
    PublicKey::decode(&bytes).map_err(|_| Error::TrustRoot)
}
