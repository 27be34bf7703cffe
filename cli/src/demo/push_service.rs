//! A push service and the device behind it, in a process of its own. What the relay sends is opened and checked by code
//! that shares nothing with the relay's: RFC 8188 and 8291 (encryption), RFC 8292 (who sends), on `ring`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{self, ECDH_P256, EphemeralPrivateKey};
use ring::hmac::{HMAC_SHA256, Key, sign};
use ring::rand::SystemRandom;
use ring::signature::{self, ECDSA_P256_SHA256_FIXED};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Outcome;
use super::person::say;
use crate::commands::Error;

/// Head and body of a request together: a push service takes no more.
const REQUEST_MAX: usize = 8 * 1024;

/// What the device subscribes with; keys in base64url, as an app hands them on.
#[derive(Serialize, Deserialize)]
pub(crate) struct Subscription {
    pub(crate) endpoint: String,
    pub(crate) p256dh: String,
    pub(crate) auth: String,
}

/// A push that came.
#[derive(Serialize, Deserialize)]
pub(crate) struct Push {
    /// All of it that can be seen without the device's keys: request line, headers, claims, body in hex.
    pub(crate) seen: String,
    pub(crate) bytes: usize,
    pub(crate) urgency: String,
    /// Whose signature it has, in base64url; it holds, and is for this service.
    pub(crate) signed_by: String,
    /// What it says.
    pub(crate) clear: String,
}

/// Prints the subscription, then a line for each request, until it is killed.
pub(crate) async fn run() -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(Error::Terminal)?;
    let origin = format!("http://{}", listener.local_addr().map_err(Error::Terminal)?);
    let failed = |what: String| Error::Terminal(std::io::Error::other(what));
    let (mut device, subscription) = Device::new(&origin).map_err(failed)?;
    say(&subscription)?;
    loop {
        let (mut socket, _) = listener.accept().await.map_err(Error::Terminal)?;
        let push = match request(&mut socket).await {
            Ok((head, body)) => device.take(&origin, &head, &body),
            Err(what) => Err(what),
        };
        say(&push)?;
        let answer = "HTTP/1.1 201 Created\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        // The relay may be gone; what came has been told.
        let _ = socket.write_all(answer.as_bytes()).await;
    }
}

/// The head as text, and the body.
async fn request(socket: &mut TcpStream) -> Outcome<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some((head, body)) = end.and_then(|end| bytes.split_at_checked(end + 4)) {
            let head = String::from_utf8_lossy(head).into_owned();
            let length: usize = header(&head, "content-length")?.parse().map_err(|_| "length")?;
            if let Some(body) = body.get(..length) {
                return Ok((head, body.to_vec()));
            }
        }
        if bytes.len() > REQUEST_MAX {
            return Err("the request is too large".into());
        }
        let read = socket.read_buf(&mut bytes).await.map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("the request has broken off".into());
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Outcome<&'a str> {
    let value = head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    });
    value.ok_or_else(|| format!("the push has no header {name}"))
}

/// Its key opens one push, which is what the story has.
struct Device {
    private: Option<EphemeralPrivateKey>,
    public: Vec<u8>,
    auth: [u8; 16],
}

impl Device {
    fn new(origin: &str) -> Outcome<(Self, Subscription)> {
        let private = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new());
        let private = private.map_err(|_| "no key can be made")?;
        let public = private.compute_public_key().map_err(|_| "no key can be made")?;
        let device =
            Self { private: Some(private), public: public.as_ref().to_vec(), auth: rand::random() };
        let subscription = Subscription {
            endpoint: format!("{origin}/{}", hex::encode(rand::random::<[u8; 8]>())),
            p256dh: URL_SAFE_NO_PAD.encode(&device.public),
            auth: URL_SAFE_NO_PAD.encode(device.auth),
        };
        Ok((device, subscription))
    }

    fn take(&mut self, origin: &str, head: &str, body: &[u8]) -> Outcome<Push> {
        let (signed_by, claims) = sender(header(head, "authorization")?, origin)?;
        if header(head, "content-encoding")? != "aes128gcm" {
            return Err("the push has another encoding than aes128gcm".into());
        }
        let clear = self.open(body)?;
        Ok(Push {
            seen: format!("{head}{claims}{}", hex::encode(body)),
            bytes: head.len() + body.len(),
            urgency: header(head, "urgency")?.to_owned(),
            signed_by,
            clear: String::from_utf8_lossy(&clear).into_owned(),
        })
    }

    /// RFC 8291 3.4, RFC 8188 2: `salt (16) || record size (4) || id length (1) || sender's key (65) || one record`.
    fn open(&mut self, body: &[u8]) -> Outcome<Vec<u8>> {
        let broken = "the body of the push is not as RFC 8291 has it";
        let (salt, rest) = body.split_at_checked(16).ok_or(broken)?;
        let (_, rest) = rest.split_at_checked(4).ok_or(broken)?;
        let (sender, record) = match rest.split_first() {
            Some((65, rest)) => rest.split_at_checked(65).ok_or(broken)?,
            _ => return Err(broken.into()),
        };
        let private = self.private.take().ok_or("a second push has come")?;
        let sender_key = agreement::UnparsedPublicKey::new(&ECDH_P256, sender);
        let keyed = agreement::agree_ephemeral(private, &sender_key, |shared| {
            let info = [b"WebPush: info\0", &self.public[..], sender, &[1]].concat();
            let input = mac(&mac(&self.auth, shared), &info);
            let key = mac(salt, &input);
            let part = |info: &[u8]| mac(&key, &[b"Content-Encoding: ", info, &[0, 1]].concat());
            (part(b"aes128gcm"), part(b"nonce"))
        });
        let (key, nonce) = keyed.map_err(|_| broken)?;
        let (key, nonce) = (key.get(..16).ok_or(broken)?, nonce.get(..12).ok_or(broken)?);
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).map_err(|_| broken)?);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken)?;
        let mut record = record.to_vec();
        let clear = key.open_in_place(nonce, Aad::empty(), &mut record);
        let clear = clear.map_err(|_| "the push was not encrypted for this device")?;
        // The last record ends with a 2, then zeros.
        let end = clear.iter().rposition(|byte| *byte != 0).ok_or(broken)?;
        match clear.split_at_checked(end) {
            Some((text, [2, ..])) => Ok(text.to_vec()),
            _ => Err(broken.into()),
        }
    }
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, key), message).as_ref().to_vec()
}

/// RFC 8292 2–3: the key that has signed the token, and its claims, if they are for this service.
fn sender(authorization: &str, origin: &str) -> Outcome<(String, String)> {
    let broken = "the push does not say who sends it, as RFC 8292 has it";
    let parts = authorization.strip_prefix("vapid ").ok_or(broken)?;
    let part = |name: &str| parts.split(',').find_map(|it| it.trim().strip_prefix(name));
    let (token, key) = (part("t=").ok_or(broken)?, part("k=").ok_or(broken)?);
    let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| broken);
    let (signed, signature) = token.rsplit_once('.').ok_or(broken)?;
    let (_, claims) = signed.split_once('.').ok_or(broken)?;
    signature::UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, decoded(key)?)
        .verify(signed.as_bytes(), &decoded(signature)?)
        .map_err(|_| "the push is not signed by the key that it shows")?;
    let claims = String::from_utf8_lossy(&decoded(claims)?).into_owned();
    let audience = serde_json::from_str::<serde_json::Value>(&claims).map_err(|_| broken)?;
    if audience.get("aud").and_then(|aud| aud.as_str()) != Some(origin) {
        return Err("the push is signed for another service".into());
    }
    Ok((key.to_owned(), claims))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_found_whatever_its_case() {
        let head = "POST /x HTTP/1.1\r\nTTL: 5\r\nUrgency:high\r\n\r\n";
        assert_eq!((header(head, "ttl"), header(head, "urgency")), (Ok("5"), Ok("high")));
        assert!(header(head, "topic").is_err());
    }

    #[test]
    fn a_push_that_is_not_as_promised_is_refused() {
        let (mut device, subscription) = Device::new("http://127.0.0.1:1").unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(subscription.p256dh).unwrap().len(), 65);
        assert!(device.open(&[]).is_err());
        assert!(device.open(&[4; 150]).is_err());
        // One whose sender's key is a key, and whose record is none.
        let mut body = vec![0; 21];
        body[20] = 65;
        body.extend(&device.public);
        body.extend([0; 40]);
        assert_eq!(device.open(&body).unwrap_err(), "the push was not encrypted for this device");
        assert_eq!(device.open(&body).unwrap_err(), "a second push has come");
        let claims = URL_SAFE_NO_PAD.encode("{\"aud\":\"http://127.0.0.1:1\"}");
        let unsigned = format!("vapid t=e30.{claims}.{},k={}", "A".repeat(86), "B".repeat(87));
        assert!(sender(&unsigned, "http://127.0.0.1:1").is_err());
    }
}
