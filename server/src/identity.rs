//! The server's own keys: read from their files, or made at the first start.
//!
//! ```text
//! trust-root.public    33 bytes  what clients pin; it signs server certificates
//! trust-root.private   32 bytes  not needed to run: the operator moves it offline
//! server.private       32 bytes  signs sender certificates
//! server.certificate             the server's public key under the trust root
//! relay.secret         32 bytes  challenges and envelope ids are derived from it
//! ```
//! Each file is one line of hex; private ones have mode 0600.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use rand::Rng;
use sha2::Sha256;
use tuckseal::{PrivateKey, PublicKey, ServerCertificate};
use zeroize::Zeroizing;

use crate::config::Config;

/// Beside the public one.
const PRIVATE_ROOT: &str = "trust-root.private";

/// The keys that a running server needs.
pub struct ServerIdentity {
    /// What clients pin.
    pub trust_root: PublicKey,
    /// Signs sender certificates.
    pub key: PrivateKey,
    /// Of that key's public half, under the trust root.
    pub certificate: ServerCertificate,
    relay_secret: Zeroizing<[u8; 32]>,
}

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("key file {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error(
        "key file {path} does not hold {expected} as one line of hex; restore it from a backup"
    )]
    Content {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// Some of the files are there and some are not, or the settings name one that is not.
    #[error(
        "key file {missing} is missing; restore it, copy it from another node, or make all of them for a new relay with `tuckseal-server keys`"
    )]
    Incomplete {
        /// The first that is missing.
        missing: PathBuf,
    },
    /// The certificate is not of this key, or not under this trust root.
    #[error(
        "trust root, server key and server certificate do not belong together; restore all three from one backup"
    )]
    Mismatch,
}

impl ServerIdentity {
    /// Reads the files; makes them all if none is there and the settings name none of them.
    ///
    /// # Errors
    /// A file is missing, unreadable or holds something else, or the three do not belong together.
    pub fn load_or_create(config: &Config) -> Result<Self, IdentityError> {
        let files = Files::new(config);
        if !files.named(config) && files.all().iter().all(|path| !path.exists()) {
            create(&files)?;
        }
        load(&files)
    }

    /// Reads the files; none if a first start would make them. Nothing is made or changed.
    ///
    /// # Errors
    /// As [`ServerIdentity::load_or_create`].
    pub fn load(config: &Config) -> Result<Option<Self>, IdentityError> {
        let files = Files::new(config);
        if files.named(config) || files.all().iter().any(|path| path.exists()) {
            return load(&files).map(Some);
        }
        Ok(None)
    }

    /// The secret of registration challenges.
    #[must_use]
    pub fn challenge_secret(&self) -> Zeroizing<[u8; 32]> {
        self.derive(b"tuckseal-challenge")
    }

    /// What keeps apart the subjects of servers that use one bus and not one store.
    #[must_use]
    pub fn bus_name(&self) -> String {
        self.derive(b"tuckseal-bus").iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The secret of attachment capabilities.
    #[must_use]
    pub fn attachment_secret(&self) -> Zeroizing<[u8; 32]> {
        self.derive(b"tuckseal-attachment")
    }

    /// What report tokens are made with.
    #[must_use]
    pub fn report_key(&self) -> Zeroizing<[u8; 32]> {
        self.derive(b"tuckseal-report-token")
    }

    /// The private key of Web Push. All but one of 2^32 derived numbers are good ones.
    #[must_use]
    pub fn vapid_secret(&self) -> Zeroizing<[u8; 32]> {
        self.derive(b"tuckseal-vapid")
    }

    /// The key of envelope ids.
    #[must_use]
    pub fn envelope_key(&self) -> Zeroizing<[u8; 16]> {
        let derived = self.derive(b"tuckseal-envelope-id");
        let mut key = Zeroizing::new([0; 16]);
        key.iter_mut().zip(derived.iter()).for_each(|(to, from)| *to = *from);
        key
    }

    fn derive(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
        // HMAC takes a key of any length; 32 bytes never fail.
        let keyed = Hmac::<Sha256>::new_from_slice(&*self.relay_secret);
        let derived = keyed.map(|keyed| keyed.chain_update(label).finalize().into_bytes());
        Zeroizing::new(derived.map(Into::into).unwrap_or_default())
    }
}

struct Files {
    trust_root: PathBuf,
    trust_root_private: PathBuf,
    key: PathBuf,
    certificate: PathBuf,
    relay_secret: PathBuf,
}

impl Files {
    /// Those that are made together.
    fn all(&self) -> [&PathBuf; 4] {
        [&self.trust_root, &self.key, &self.certificate, &self.relay_secret]
    }

    fn named(&self, config: &Config) -> bool {
        let files = [
            &config.trust_root_file,
            &config.server_key_file,
            &config.server_certificate_file,
            &config.relay_secret_file,
        ];
        files.into_iter().any(Option::is_some)
    }

    fn new(config: &Config) -> Self {
        let at = |named: &Option<PathBuf>, name: &str| {
            named.clone().unwrap_or_else(|| config.data_dir.join(name))
        };
        let trust_root = at(&config.trust_root_file, "trust-root.public");
        Self {
            trust_root_private: trust_root.with_file_name(PRIVATE_ROOT),
            key: at(&config.server_key_file, "server.private"),
            certificate: at(&config.server_certificate_file, "server.certificate"),
            relay_secret: at(&config.relay_secret_file, "relay.secret"),
            trust_root,
        }
    }
}

/// Makes the key files where the settings have them, if none of them is there; those that are there stay as they are. Gives where the
/// private trust root was put, if they were made.
///
/// # Errors
/// Some are there and some are not, a file cannot be written, or what is there does not belong together.
pub fn make_keys(config: &Config) -> Result<Option<PathBuf>, IdentityError> {
    let files = Files::new(config);
    if files.all().iter().any(|path| path.exists()) {
        return load(&files).map(|_| None);
    }
    for folder in files.all().into_iter().filter_map(|path| path.parent()) {
        let failed = |source| IdentityError::File { path: folder.into(), source };
        private_folder(folder).map_err(failed)?;
    }
    create(&files)?;
    Ok(Some(files.trust_root_private))
}

/// Makes a folder for the owner alone, if it is not there.
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes another server key and its certificate under the trust root, in a folder that is made if it is not there. Gives the
/// number of the certificate. What was signed with the key of before is good until it expires.
///
/// # Errors
/// The trust root cannot be read, or one of the two files is there already.
pub fn new_signer(trust_root: &Path, folder: &Path) -> Result<u32, IdentityError> {
    let root = read(trust_root, "a private key", |bytes| PrivateKey::from_bytes(bytes).ok())?;
    let failed = |source| IdentityError::File { path: folder.into(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    let (key, certificate) = (folder.join("server.private"), folder.join("server.certificate"));
    write_signer(&root, &key, &certificate)
}

fn write_signer(root: &PrivateKey, key: &Path, certificate: &Path) -> Result<u32, IdentityError> {
    let mut rng = rand::rng();
    let new = PrivateKey::generate(&mut rng);
    // Top bit clear: no collision with numbers that clients treat as revoked.
    let id = rng.next_u32() >> 1;
    let issued = ServerCertificate::issue(id, &new.public_key(), root, &mut rng);
    write(key, &*new.to_bytes(), Access::Private)?;
    write(certificate, issued.encode(), Access::Public)?;
    Ok(id)
}

fn create(files: &Files) -> Result<(), IdentityError> {
    let root = PrivateKey::generate(&mut rand::rng());
    write(&files.trust_root_private, &*root.to_bytes(), Access::Private)?;
    write_signer(&root, &files.key, &files.certificate)?;
    let mut secret = Zeroizing::new([0; 32]);
    rand::rng().fill_bytes(&mut *secret);
    write(&files.relay_secret, &*secret, Access::Private)?;
    // Last: a first start that broke off before this line is reported, not half used.
    write(&files.trust_root, &root.public_key().serialize(), Access::Public)?;
    tracing::warn!(
        file = %files.trust_root_private.display(),
        "made a new trust root; move its private key to a safe place offline, the server does not need it"
    );
    Ok(())
}

fn load(files: &Files) -> Result<ServerIdentity, IdentityError> {
    // None is made anew beside others: a node with another secret than the rest would go by other envelope ids.
    if let Some(missing) = files.all().into_iter().find(|path| !path.exists()) {
        return Err(IdentityError::Incomplete { missing: missing.clone() });
    }
    let trust_root =
        read(&files.trust_root, "a public key", |bytes| PublicKey::decode(bytes).ok())?;
    let key = read(&files.key, "a private key", |bytes| PrivateKey::from_bytes(bytes).ok())?;
    let certificate = read(&files.certificate, "a server certificate", |bytes| {
        ServerCertificate::decode(bytes).ok()
    })?;
    let relay_secret = read(&files.relay_secret, "32 bytes", |bytes| bytes.try_into().ok())?;
    let signed = certificate.validate(&[trust_root]).is_ok();
    if !signed || certificate.key().serialize() != key.public_key().serialize() {
        return Err(IdentityError::Mismatch);
    }
    Ok(ServerIdentity { trust_root, key, certificate, relay_secret: Zeroizing::new(relay_secret) })
}

#[derive(Clone, Copy)]
enum Access {
    Private,
    Public,
}

fn write(path: &Path, bytes: &[u8], access: Access) -> Result<(), IdentityError> {
    let failed = |source| IdentityError::File { path: path.into(), source };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(match access {
            Access::Private => 0o600,
            Access::Public => 0o644,
        });
    }
    #[cfg(not(unix))]
    let _ = access;
    let line = Zeroizing::new(format!("{}\n", hex::encode(bytes)));
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync_folder(folder.unwrap_or(Path::new("."))).map_err(failed)
}

/// The file's name must survive a power cut too.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn read<T>(
    path: &Path,
    expected: &'static str,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Result<T, IdentityError> {
    let text = fs::read_to_string(path)
        .map_err(|source| IdentityError::File { path: path.into(), source })?;
    let bytes = hex::decode(Zeroizing::new(text).trim()).map(Zeroizing::new).ok();
    bytes
        .and_then(|bytes| parse(&bytes))
        .ok_or(IdentityError::Content { path: path.into(), expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_start_uses_the_keys_of_the_first_and_does_not_need_the_private_trust_root() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new(folder.path());
        let first = ServerIdentity::load_or_create(&config).unwrap();
        fs::remove_file(folder.path().join("trust-root.private")).unwrap();
        let second = ServerIdentity::load_or_create(&config).unwrap();
        assert_eq!(first.certificate.encode(), second.certificate.encode());
        assert_eq!(*first.envelope_key(), *second.envelope_key());
        assert_ne!(first.envelope_key().as_slice(), &first.challenge_secret()[..16]);
    }

    #[test]
    fn missing_or_foreign_file_is_refused_and_not_replaced() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = Config::new(folder.path());
        ServerIdentity::load_or_create(&config).unwrap();
        ServerIdentity::load_or_create(&Config::new(other.path())).unwrap();
        fs::copy(other.path().join("server.private"), folder.path().join("server.private"))
            .unwrap();
        assert!(matches!(ServerIdentity::load_or_create(&config), Err(IdentityError::Mismatch)));
    }

    #[test]
    fn file_that_is_missing_beside_others_is_not_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new(folder.path());
        ServerIdentity::load_or_create(&config).unwrap();
        let kept = tempfile::tempdir().unwrap();
        for name in ["trust-root.public", "server.private", "server.certificate", "relay.secret"] {
            let (path, aside) = (folder.path().join(name), kept.path().join(name));
            fs::rename(&path, &aside).unwrap();
            for read in [
                ServerIdentity::load_or_create(&config).map(drop),
                ServerIdentity::load(&config).map(drop),
            ] {
                let Err(IdentityError::Incomplete { missing }) = read else { panic!("{name}") };
                assert_eq!(missing, path);
            }
            assert!(!path.exists());
            fs::rename(&aside, &path).unwrap();
        }
        ServerIdentity::load_or_create(&config).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn private_files_are_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        ServerIdentity::load_or_create(&Config::new(folder.path())).unwrap();
        for name in ["trust-root.private", "server.private", "relay.secret"] {
            let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
}
