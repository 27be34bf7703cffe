//! RFC 8291: the keys of a subscription that are ours, and what is encrypted to them.

use prost::Message;
use rand_core::CryptoRng;
use tuckseal::service::PushRegistration;
use tuckseal::service::push_registration::Target;
use web_push_native::p256::{PublicKey, SecretKey};
use web_push_native::{Auth, decrypt};
use zeroize::Zeroizing;

use super::WebSubscription;
use crate::store::Push;

/// A push service takes no more (RFC 8030 7.2).
const BODY_MAX: usize = 4096;

pub(super) struct WebPushKeys {
    secret: SecretKey,
    auth: [u8; 16],
}

impl WebPushKeys {
    pub(super) fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut auth = [0; 16];
        rng.fill_bytes(&mut auth);
        loop {
            let mut bytes = Zeroizing::new([0; 32]);
            rng.fill_bytes(&mut bytes[..]);
            // Once in 2^32 times it is no scalar of the group.
            if let Ok(secret) = SecretKey::from_slice(&bytes[..]) {
                return Self { secret, auth };
            }
        }
    }

    /// Those of the profile, and the endpoint that they are for.
    pub(super) fn of(push: &Push) -> Option<(Self, String)> {
        let secret = SecretKey::from_slice(&push.secret.as_ref()?[..]).ok()?;
        let registration = PushRegistration::decode(&push.registration.as_ref()?[..]).ok()?;
        let Target::Web(web) = registration.target? else { return None };
        Some((Self { secret, auth: web.auth[..].try_into().ok()? }, web.endpoint))
    }

    pub(super) fn secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.to_bytes().into())
    }

    pub(super) fn subscription(&self, endpoint: &str) -> WebSubscription {
        let mut p256dh = [0; 65];
        p256dh.copy_from_slice(&self.secret.public_key().to_sec1_bytes());
        WebSubscription { endpoint: endpoint.to_owned(), p256dh, auth: self.auth }
    }

    pub(super) fn open(&self, body: &[u8]) -> Option<Vec<u8>> {
        if body.len() > BODY_MAX {
            return None;
        }
        decrypt(body.to_vec(), &self.secret, &Auth::from(self.auth)).ok()
    }
}

/// Whether it is a point of P-256, not compressed.
pub(super) fn is_point(bytes: &[u8; 65]) -> bool {
    PublicKey::from_sec1_bytes(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    /// RFC 8291, appendix A.
    #[test]
    fn the_message_of_the_rfc_is_opened() {
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let keys = WebPushKeys {
            secret: SecretKey::from_slice(&bytes("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"))
                .unwrap(),
            auth: bytes("BTBZMqHH6r4Tts7J_aSIgg").try_into().unwrap(),
        };
        let mut body = bytes(
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6Tlz\
             AC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN",
        );
        assert_eq!(keys.open(&body).unwrap(), b"When I grow up, I want to be a watermelon");
        *body.last_mut().unwrap() ^= 1;
        assert!(keys.open(&body).is_none());
    }

    #[test]
    fn what_is_no_message_is_not_opened() {
        let keys = WebPushKeys::generate(&mut rand::rng());
        for length in [0, 1, 15, 16, 20, 21, 85, 86, 102, 103, 104, 4096, 4097, 1 << 20] {
            for byte in [0, 4, 65, 255] {
                assert!(keys.open(&vec![byte; length]).is_none(), "{length} of {byte}");
            }
        }
    }
}
