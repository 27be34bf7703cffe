//! Files: encrypted piece by piece on the way to the relay's attachment store, fetched into a part file and
//! checked whole before a byte of the file is written. Memory does not grow with the file. What broke off
//! goes on where it was.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tuckseal::content::{AttachmentPointer, MAX_NAME_BYTES};
use tuckseal::{
    AttachmentDecryptor, AttachmentEncryptor, AttachmentError, AttachmentKeys, AttachmentVerifier,
    Sealed, Sealing, encrypted_attachment_len,
};

use crate::backoff;
use crate::error::TransferError;
use crate::shell::Shell;
use crate::store::{Account, Upload};
use crate::transport::ServerError;
use crate::transport::http::Http;

/// Bytes of one request of an upload, and of one read of a file.
const PIECE: usize = 512 * 1024;
/// Failures in a row after which a transfer is left to be taken up again.
const ATTEMPTS: u32 = 8;

/// What a transfer needs of the client.
pub(crate) struct Transfer<'a> {
    pub(crate) shell: &'a Shell,
    pub(crate) http: &'a Http,
    pub(crate) account: &'a Account,
}

impl Transfer<'_> {
    /// Uploads a file; the pointer to it goes into a message.
    pub(crate) async fn upload(
        &self,
        path: &Path,
        content_type: &str,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<AttachmentPointer, TransferError> {
        let path = path.canonicalize().map_err(TransferError::file(path))?;
        let mut file = File::open(&path).await.map_err(TransferError::file(&path))?;
        let metadata = file.metadata().await.map_err(TransferError::file(&path))?;
        let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let name = path.to_string_lossy().into_owned();
        let modified_ns = modified.unwrap_or_default().as_nanos().to_le_bytes();
        let upload = self.begun(name, metadata.len(), modified_ns).await?;
        let sealed = self.feed(&path, &mut file, &upload, progress).await?;
        let done = upload.name.clone();
        self.shell
            .call(move |engine, _| engine.store.commit(|rows| rows.delete_upload(&done)))
            .await?;
        Ok(AttachmentPointer {
            path: upload.download,
            keys: upload.keys,
            digest: sealed.digest,
            size: sealed.size,
            incremental: Some(sealed.incremental),
            content_type: content_type.to_owned(),
            file_name: path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            preview: bytes::Bytes::new(),
        })
    }

    /// The upload of this very file that was begun and whose room is there still, or a new one.
    async fn begun(
        &self,
        name: String,
        size: u64,
        modified: [u8; 16],
    ) -> Result<Upload, TransferError> {
        let wanted = name.clone();
        let known = self.shell.call(move |engine, _| engine.store.rows().upload(&wanted)).await?;
        if let Some(known) = known.filter(|it| it.size == size && it.modified == modified) {
            match self.http.upload_offset(&known.upload).await {
                Ok(_) => return Ok(known),
                // It has expired, or the relay is another one.
                Err(ServerError::NotFound | ServerError::Refused { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let room = encrypted_attachment_len(size)?;
        let slot = self.http.make_room(self.account, room).await?;
        if slot.download.len() > MAX_NAME_BYTES {
            // Nobody would take a message that names it.
            return Err(ServerError::Answer.into());
        }
        let mut rng = rand::rng();
        let mut iv = [0; 16];
        rand::Rng::fill_bytes(&mut rng, &mut iv);
        let upload = Upload {
            name,
            size,
            modified,
            keys: AttachmentKeys::generate(&mut rng),
            iv,
            upload: slot.upload,
            download: slot.download,
        };
        let saved = upload.clone();
        self.shell
            .call(move |engine, _| engine.store.commit(|rows| rows.save_upload(&saved)))
            .await?;
        Ok(upload)
    }

    /// Encrypts all of the file and sends what the relay does not have.
    async fn feed(
        &self,
        path: &Path,
        file: &mut File,
        upload: &Upload,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Sealed, TransferError> {
        let whole = encrypted_attachment_len(upload.size)?;
        let mut offset = self.offset(&upload.upload).await?;
        let mut encryptor = AttachmentEncryptor::with_iv(&upload.keys, upload.size, upload.iv)?;
        let mut buffer = vec![0; PIECE];
        let mut out = Vec::with_capacity(2 * PIECE);
        // Where `out` begins in the encrypted file.
        let mut at = 0;
        loop {
            let read = file.read(&mut buffer).await.map_err(TransferError::file(path))?;
            if read == 0 {
                break;
            }
            encryptor.update(buffer.get(..read).unwrap_or_default(), &mut out)?;
            self.send(upload, &mut out, &mut at, &mut offset).await?;
            progress(at, whole);
        }
        let sealed = loop {
            match encryptor.finish(&mut out)? {
                Sealing::More(more) => encryptor = more,
                Sealing::Done(sealed) => break sealed,
            }
            if out.len() >= PIECE {
                self.send(upload, &mut out, &mut at, &mut offset).await?;
                progress(at, whole);
            }
        };
        self.send(upload, &mut out, &mut at, &mut offset).await?;
        progress(whole, whole);
        Ok(sealed)
    }

    /// Sends what of `out` is beyond the offset, again after a failure, and empties it.
    async fn send(
        &self,
        upload: &Upload,
        out: &mut Vec<u8>,
        at: &mut u64,
        offset: &mut u64,
    ) -> Result<(), TransferError> {
        let end = *at + out.len() as u64;
        let mut attempt = 0;
        while *offset < end {
            let known = usize::try_from(offset.saturating_sub(*at)).unwrap_or(usize::MAX);
            let piece = bytes::Bytes::copy_from_slice(out.get(known..).unwrap_or_default());
            match self.http.upload_piece(&upload.upload, *offset, piece).await {
                Ok(reached) if reached > *offset => {
                    *offset = reached;
                    attempt = 0;
                }
                Ok(_) => return Err(ServerError::Answer.into()),
                Err(error) => {
                    wait(&mut attempt, &error).await?;
                    *offset = self.offset(&upload.upload).await?;
                    if *offset < *at {
                        // It has lost what it had confirmed: begin at the beginning next time.
                        return Err(error.into());
                    }
                }
            }
        }
        *at = end;
        out.clear();
        Ok(())
    }

    async fn offset(&self, path: &str) -> Result<u64, TransferError> {
        let mut attempt = 0;
        loop {
            match self.http.upload_offset(path).await {
                Ok(offset) => return Ok(offset),
                Err(error) => wait(&mut attempt, &error).await?,
            }
        }
    }

    /// Fetches a file of a message and writes it to a path that must be free.
    pub(crate) async fn download(
        &self,
        pointer: &AttachmentPointer,
        to: &Path,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<(), TransferError> {
        if to.exists() {
            return Err(TransferError::Exists { path: to.to_owned() });
        }
        let part = beside(to, "part");
        let macs = pointer.incremental.as_ref();
        let mut verifier =
            AttachmentVerifier::new(&pointer.keys, &pointer.digest, pointer.size, macs)?;
        let result = self.fetch(pointer, &part, &mut verifier, progress).await;
        let checked = result.and_then(|()| Ok(verifier.finish()?));
        let decryptor = match checked {
            Ok(decryptor) => decryptor,
            Err(error) => {
                if matches!(error, TransferError::Attachment(_)) {
                    // What is damaged is not gone on with.
                    drop(tokio::fs::remove_file(&part).await);
                }
                return Err(error);
            }
        };
        let clear = beside(to, "clear");
        decrypt(decryptor, &part, &clear).await?;
        tokio::fs::rename(&clear, to).await.map_err(TransferError::file(to))?;
        tokio::fs::remove_file(&part).await.map_err(TransferError::file(&part))
    }

    /// Brings the part file to its end; every byte of it goes through the verifier.
    async fn fetch(
        &self,
        pointer: &AttachmentPointer,
        part: &Path,
        verifier: &mut AttachmentVerifier,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<(), TransferError> {
        let failed = TransferError::file(part);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(part).await.map_err(failed)?;
        let mut have = 0;
        let mut buffer = vec![0; PIECE];
        loop {
            let read = file.read(&mut buffer).await.map_err(TransferError::file(part))?;
            if read == 0 {
                break;
            }
            verifier.update(buffer.get(..read).unwrap_or_default())?;
            have += read as u64;
        }
        drop(buffer);
        let mut attempt = 0;
        loop {
            let mut download = match self.http.download(&pointer.path, have).await {
                Ok(Some(download)) => download,
                Ok(None) => break,
                Err(error) => {
                    wait(&mut attempt, &error).await?;
                    continue;
                }
            };
            let whole = have + download.len();
            let ended = loop {
                match download.next().await {
                    Ok(Some(bytes)) => {
                        verifier.update(&bytes)?;
                        file.write_all(&bytes).await.map_err(TransferError::file(part))?;
                        have += bytes.len() as u64;
                        attempt = 0;
                        progress(have, whole);
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            match ended {
                Ok(()) if have >= whole => break,
                Ok(()) => {}
                Err(error) => wait(&mut attempt, &error).await?,
            }
        }
        file.sync_all().await.map_err(TransferError::file(part))
    }
}

/// The second pass.
async fn decrypt(
    mut decryptor: AttachmentDecryptor,
    part: &Path,
    to: &Path,
) -> Result<(), TransferError> {
    let mut from = File::open(part).await.map_err(TransferError::file(part))?;
    let mut file = File::create(to).await.map_err(TransferError::file(to))?;
    let mut buffer = vec![0; PIECE];
    let mut out = Vec::with_capacity(2 * PIECE);
    loop {
        let read = from.read(&mut buffer).await.map_err(TransferError::file(part))?;
        if read == 0 {
            break;
        }
        decryptor.update(buffer.get(..read).unwrap_or_default(), &mut out)?;
        file.write_all(&out).await.map_err(TransferError::file(to))?;
        out.clear();
    }
    decryptor.finish(&mut out)?;
    file.write_all(&out).await.map_err(TransferError::file(to))?;
    file.sync_all().await.map_err(TransferError::file(to))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Waits a while before the next attempt, if there is to be one.
async fn wait(attempt: &mut u32, error: &ServerError) -> Result<(), TransferError> {
    let is_passing = matches!(
        error,
        ServerError::Unreachable { .. } | ServerError::Busy { .. } | ServerError::Conflict
    );
    if !is_passing || *attempt >= ATTEMPTS {
        return Err(error.clone().into());
    }
    let wait = backoff::delay(*attempt, &mut rand::rng()).max(error.retry_after());
    *attempt += 1;
    tokio::time::sleep(wait.max(Duration::from_millis(20))).await;
    Ok(())
}

impl From<AttachmentError> for TransferError {
    fn from(error: AttachmentError) -> Self {
        Self::Attachment(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::{Person, Relay, database};
    use prost::Message;
    use tokio::net::TcpListener;
    use tuckseal::service::AttachmentSlot;

    /// A relay that answers one request with this.
    async fn answering(body: Vec<u8>) -> Http {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            let head = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&body).await.unwrap();
        });
        Http::new(&url, None).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_path_that_no_message_can_name_is_no_answer_of_a_relay() {
        let relay = Relay::start().await;
        let alice = Person::register(&relay, "alice").await;
        let path = alice.folder.path().join("file");
        std::fs::write(&path, "content").unwrap();
        let download = format!("/v1/attachments/{}", "x".repeat(MAX_NAME_BYTES));
        let upload = "/v1/attachments/upload".to_owned();
        let slot = AttachmentSlot { upload, download, expires_ms: 0 };
        let http = answering(slot.encode_to_vec()).await;
        let (shell, account) = (&alice.client.shell, &*alice.client.account);
        let refused = Transfer { shell, http: &http, account }.upload(&path, "", &|_, _| ()).await;
        assert!(matches!(refused, Err(TransferError::Server(ServerError::Answer))), "{refused:?}");
        let sql = "SELECT count(*) FROM upload";
        let begun: u32 =
            database(alice.folder.path()).query_row(sql, (), |row| row.get(0)).unwrap();
        assert_eq!(begun, 0);
    }
}
