//! The arguments of requests (shim.md, "Framing"): how bytes, remotes and bundles stand in JSON.
//! Unknown arguments are ignored; a missing or misspelt one is `bad_request`.

use crate::error::Refusal;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use tuckseal::{
    Address, DeviceId, IdentityKey, KemPreKeyId, KemPreKeyPublic, KemPublicKey, PreKeyBundle,
    PreKeyId, PreKeyPublic, PublicKey, ServiceId, ServiceIdKind, SignedPreKeyId,
    SignedPreKeyPublic, Timestamp,
};

/// Reads the arguments of one operation.
pub(crate) fn arguments<T: DeserializeOwned>(request: Map<String, Value>) -> Result<T, Refusal> {
    serde_json::from_value(Value::Object(request)).map_err(Refusal::bad_request)
}

/// Bytes as lowercase hex.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl Hex {
    /// Exactly `N` bytes.
    pub(crate) fn exact<const N: usize>(&self, name: &str) -> Result<[u8; N], Refusal> {
        let found = self.0.len();
        let wrong = |_| Refusal::bad_request(format!("{name} is {found} bytes, expected {N}"));
        self.0.as_slice().try_into().map_err(wrong)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(D::Error::custom("hex is written in lower case"));
        }
        hex::decode(text).map(Self).map_err(|_| D::Error::custom("a byte string is not hex"))
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(&hex::encode(&self.0))
    }
}

impl<T: AsRef<[u8]>> From<T> for Hex {
    fn from(bytes: T) -> Self {
        Self(bytes.as_ref().to_vec())
    }
}

/// A remote device: `{"service_id", "device_id"}`.
#[derive(Deserialize, Serialize)]
pub(crate) struct Remote {
    pub(crate) service_id: String,
    pub(crate) device_id: u32,
}

impl Remote {
    pub(crate) fn address(&self) -> Result<Address, Refusal> {
        let service_id: ServiceId = self.service_id.parse()?;
        Ok(Address::new(service_id, DeviceId::try_from(self.device_id)?))
    }
}

impl From<Address> for Remote {
    fn from(address: Address) -> Self {
        Self {
            service_id: address.service_id.to_string(),
            device_id: address.device_id.get().into(),
        }
    }
}

/// The bytes of a UUID in its one form.
pub(crate) fn uuid(text: &str) -> Result<[u8; 16], Refusal> {
    let service_id: ServiceId = text.parse()?;
    match service_id.kind() {
        ServiceIdKind::Aci => Ok(*service_id.uuid()),
        _ => Err(Refusal::bad_request("a distribution id is a bare UUID")),
    }
}

/// A time in milliseconds, if one was passed.
pub(crate) type Now = Option<u64>;

/// The time passed, or the system clock's: for a decision, never for the state.
pub(crate) fn or_clock(now: Now) -> Timestamp {
    Timestamp::from_millis(now.unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }))
}

/// A bundle, as `party.bundle` answers it.
#[derive(Deserialize, Serialize)]
pub(crate) struct Bundle {
    pub(crate) registration_id: u32,
    pub(crate) device_id: u32,
    pub(crate) identity_key: Hex,
    pub(crate) signed_prekey: Signed,
    pub(crate) prekey: Option<Unsigned>,
    pub(crate) kem_prekey: Option<Signed>,
}

/// A public prekey with a signature.
#[derive(Deserialize, Serialize)]
pub(crate) struct Signed {
    pub(crate) id: u32,
    pub(crate) public: Hex,
    pub(crate) signature: Hex,
}

/// A public prekey without one.
#[derive(Deserialize, Serialize)]
pub(crate) struct Unsigned {
    pub(crate) id: u32,
    pub(crate) public: Hex,
}

impl Signed {
    /// A signature of another length belongs to no key (K6).
    fn signature(&self) -> Result<[u8; 64], Refusal> {
        let signature = self.signature.0.as_slice().try_into();
        signature.map_err(|_| tuckseal::InvalidSignature.into())
    }
}

impl Bundle {
    pub(crate) fn parse(&self) -> Result<PreKeyBundle, Refusal> {
        let one_time = self.prekey.as_ref().map(|prekey| {
            let key = PublicKey::decode(&prekey.public.0)?;
            Ok::<_, Refusal>(PreKeyPublic { id: PreKeyId(prekey.id), key })
        });
        let kem = self.kem_prekey.as_ref().map(|prekey| {
            let key = KemPublicKey::decode(&prekey.public.0)?;
            let signature = prekey.signature()?;
            Ok::<_, Refusal>(KemPreKeyPublic { id: KemPreKeyId(prekey.id), key, signature })
        });
        Ok(PreKeyBundle {
            registration_id: self.registration_id,
            device_id: DeviceId::try_from(self.device_id)?,
            identity_key: IdentityKey::decode(&self.identity_key.0)?,
            signed_prekey: SignedPreKeyPublic {
                id: SignedPreKeyId(self.signed_prekey.id),
                key: PublicKey::decode(&self.signed_prekey.public.0)?,
                signature: self.signed_prekey.signature()?,
            },
            one_time: one_time.transpose()?,
            kem: kem.transpose()?,
        })
    }
}

impl From<&PreKeyBundle> for Bundle {
    fn from(bundle: &PreKeyBundle) -> Self {
        let signed = |id, public: &[u8], signature: &[u8]| Signed {
            id,
            public: public.into(),
            signature: signature.into(),
        };
        let spk = &bundle.signed_prekey;
        Self {
            registration_id: bundle.registration_id,
            device_id: bundle.device_id.get().into(),
            identity_key: bundle.identity_key.serialize().into(),
            signed_prekey: signed(spk.id.0, &spk.key.serialize(), &spk.signature),
            prekey: bundle
                .one_time
                .map(|it| Unsigned { id: it.id.0, public: it.key.serialize().into() }),
            kem_prekey: bundle
                .kem
                .as_ref()
                .map(|it| signed(it.id.0, &it.key.serialize(), &it.signature)),
        }
    }
}
