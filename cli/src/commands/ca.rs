//! `tuckseal ca`: whom the profile trusts with the server's certificate.

use super::Error;
use std::path::{Path, PathBuf};
use tuckseal_client::Ca;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Certificate of the server's own authority in PEM; kept in the profile, which then trusts no other
    #[arg(required_unless_present = "system")]
    file: Option<PathBuf>,
    /// Trust the authorities that this system trusts
    #[arg(long, conflicts_with = "file")]
    system: bool,
}

pub(crate) async fn run(folder: &Path, options: Options) -> Result<(), Error> {
    let ca = options.file.as_deref().map(read).transpose()?;
    super::open(folder).await?.set_ca(ca).await?;
    match options.file {
        Some(file) => print_line!("trusts {} and no other authority", file.display()),
        None => print_line!("trusts the authorities of this system"),
    }
    Ok(())
}

pub(super) fn read(file: &Path) -> Result<Ca, Error> {
    let path = || file.to_owned();
    let pem = std::fs::read(file).map_err(|source| Error::CaFile { path: path(), source })?;
    Ca::from_pem(&pem).map_err(|source| Error::Ca { path: path(), source })
}
