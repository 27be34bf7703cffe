//! What the server shows of an account's devices: read, judged, and made into sessions.

use tuckseal::service::{Bundles, DeviceBundle, PublicPreKey};
use tuckseal::{
    Address, AgreementPolicy, DeviceId, IdentityKey, KemPreKeyId, KemPreKeyPublic, KemPublicKey,
    LocalParty, PreKeyBundle, PreKeyId, PreKeyPublic, PublicKey, SignedPreKeyId,
    SignedPreKeyPublic, Trust,
};

use super::Turn;
use super::encrypt::forget_stream;
use super::order::forget_device;
use crate::store::{Device, Peer, ProfileError, Rows};

/// What the server says of an account's devices, in types.
pub(super) struct Offer {
    pub(super) identity: IdentityKey,
    devices: Vec<PreKeyBundle>,
}

impl Offer {
    /// Leaves a device out; those that are left.
    pub(super) fn without(&mut self, device: DeviceId) -> Vec<DeviceId> {
        self.devices.retain(|bundle| bundle.device_id != device);
        self.devices.iter().map(|bundle| bundle.device_id).collect()
    }
}

/// Why sessions were not begun.
pub(super) enum Beginning {
    Profile(ProfileError),
    Bundle,
}

impl From<ProfileError> for Beginning {
    fn from(error: ProfileError) -> Self {
        Self::Profile(error)
    }
}

/// Begins a session with every device that has no usable one, and drops the devices that are gone.
pub(super) fn begin_sessions(
    rows: Rows<'_>,
    local: &LocalParty,
    peer: &Peer,
    offer: &Offer,
    turn: &mut Turn<'_>,
) -> Result<(), Beginning> {
    let account = peer.account;
    for gone in rows.devices(account)? {
        if !offer.devices.iter().any(|bundle| bundle.device_id == gone.address.device_id) {
            forget_device(rows, gone.address, turn)?;
        }
    }
    for bundle in &offer.devices {
        let address = Address::new(account, bundle.device_id);
        let mut device = rows.device(address)?.unwrap_or(Device::unknown(address));
        let same = device.registration_id == bundle.registration_id;
        if same && device.session.can_encrypt(turn.now) {
            continue;
        }
        let trust = peer.identity.map_or(Trust::FirstUse, Trust::Only);
        let policy = AgreementPolicy::RequireSpqr;
        device
            .session
            .initiate(local, &address, bundle, trust, policy, &mut turn.rng, turn.now)
            .map_err(|_| Beginning::Bundle)?;
        if !same {
            forget_stream(rows, &mut device)?;
        }
        device.registration_id = bundle.registration_id;
        rows.save_device(&device)?;
    }
    rows.save_peer(&Peer { identity: Some(offer.identity), ..peer.clone() })?;
    rows.mark_not_encrypted(account)?;
    Ok(())
}

/// `None` when a key or an id is missing or malformed, or there is no device at all.
pub(super) fn read_bundles(bundles: &Bundles) -> Option<Offer> {
    let identity = IdentityKey::decode(&bundles.identity_key).ok()?;
    let devices: Vec<_> = bundles
        .devices
        .iter()
        .map(|device| read_bundle(identity, device))
        .collect::<Option<_>>()?;
    (!devices.is_empty()).then_some(Offer { identity, devices })
}

fn read_bundle(identity_key: IdentityKey, device: &DeviceBundle) -> Option<PreKeyBundle> {
    let curve_key = |prekey: &PublicPreKey| PublicKey::decode(&prekey.key).ok();
    let signature = |prekey: &PublicPreKey| <[u8; 64]>::try_from(&prekey.signature[..]).ok();
    let signed = device.signed_prekey.as_ref()?;
    let one_time = match &device.one_time {
        Some(prekey) => Some(PreKeyPublic { id: PreKeyId(prekey.id), key: curve_key(prekey)? }),
        None => None,
    };
    let kem = device.kem.as_ref()?;
    Some(PreKeyBundle {
        registration_id: Some(device.registration_id).filter(|id| *id > 0)?,
        device_id: DeviceId::try_from(device.device_id).ok()?,
        identity_key,
        signed_prekey: SignedPreKeyPublic {
            id: SignedPreKeyId(signed.id),
            key: curve_key(signed)?,
            signature: signature(signed)?,
        },
        one_time,
        kem: Some(KemPreKeyPublic {
            id: KemPreKeyId(kem.id),
            key: KemPublicKey::decode(&kem.key).ok()?,
            signature: signature(kem)?,
        }),
    })
}
