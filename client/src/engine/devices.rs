//! The other devices of our account. What this one sends is told to them, and what they tell is believed: they hold the account's
//! identity key as we do. To the rest of the engine the account is a peer, whose devices are all but this one.
//!
//! As long as there is no other device, nothing of this costs a message more than a look into the store. Where one may be that
//! we have not heard of, because we have offered the account to it, what it would be told waits until a list of the devices
//! shows who is there.

use tuckseal::content::{
    AttachmentPointer, Body, Contact, Content, Data, GroupChange, GroupContext, ReadMark, Sync,
    Transcript,
};
use tuckseal::service::{DeviceMismatch, Devices};
use tuckseal::{Address, DeviceId, LocalParty, ServiceId, Timestamp};

use super::flight::Request;
use super::order::forget_device;
use super::{Action, Engine, Link, Turn};
use crate::error::DeviceError;
use crate::event::Event;
use crate::store::{Device, Form, Group, Peer, ProfileError, Rows, Standing};
use crate::transport::ServerError;

/// Accounts that one content tells of.
const CONTACTS: usize = 100;
/// Messages that one content marks as read.
const MARKS: usize = 1000;

/// Tells the other devices, and whether there are any, or may be.
pub(super) fn tell(
    rows: Rows<'_>,
    us: ServiceId,
    sync: impl FnOnce() -> Sync,
    turn: &Turn<'_>,
) -> Result<bool, ProfileError> {
    let others = rows.may_have_others(us)?;
    if others {
        let content = Content::new(Body::Sync(sync()), rows.timestamp(turn.now)?);
        rows.put_out(us, Form::Notice, &content)?;
    }
    Ok(others)
}

/// Tells the other devices of a message of ours; `None`: to a group.
pub(super) fn tell_sent(
    rows: Rows<'_>,
    us: ServiceId,
    to: Option<ServiceId>,
    timestamp: Timestamp,
    data: &Data,
    turn: &Turn<'_>,
) -> Result<bool, ProfileError> {
    tell(rows, us, || Sync::Sent(Transcript { to, timestamp, data: data.clone() }), turn)
}

/// Tells the other devices what became of a group by us.
pub(super) fn tell_change(
    rows: Rows<'_>,
    us: ServiceId,
    group: &Group,
    change: GroupChange,
    turn: &Turn<'_>,
) -> Result<bool, ProfileError> {
    let context = GroupContext { id: group.id.0, revision: group.revision, change: Some(change) };
    let data = Data { group: Some(context), ..Data::default() };
    tell_sent(rows, us, None, turn.now, &data, turn)
}

/// Tells the other devices that these messages, of these accounts, were read.
pub(super) fn tell_read(
    rows: Rows<'_>,
    us: ServiceId,
    read: &[(ServiceId, Timestamp)],
    turn: &Turn<'_>,
) -> Result<(), ProfileError> {
    for read in read.chunks(MARKS) {
        let mark = |(sender, timestamp): &(ServiceId, Timestamp)| ReadMark {
            sender: *sender,
            timestamp: *timestamp,
        };
        tell(rows, us, || Sync::Read(read.iter().map(mark).collect()), turn)?;
    }
    Ok(())
}

/// Another device of ours, which we know from now on; when that is news it is told what it cannot know. That what is encrypted
/// already is for it, too, the relay says when it gets that.
pub(super) fn meet(
    rows: Rows<'_>,
    local: &LocalParty,
    device: DeviceId,
    turn: &mut Turn<'_>,
) -> Result<(), ProfileError> {
    let us = local.address.service_id;
    let address = Address::new(us, device);
    if rows.device(address)?.is_some() {
        return Ok(());
    }
    know_ourselves(rows, local)?;
    rows.save_device(&Device::unknown(address))?;
    turn.tell(Event::DeviceLinked { device_id: device });
    let known: Vec<Contact> =
        rows.peers()?.iter().filter(|peer| peer.account != us).map(contact).collect();
    for contacts in known.chunks(CONTACTS) {
        tell(rows, us, || Sync::Contacts(contacts.to_vec()), turn)?;
    }
    for group in rows.groups()?.iter().filter(|group| group.standing == Standing::Member) {
        let (name, members) = (group.name.clone(), group.members.clone());
        tell_change(rows, us, group, GroupChange::State { name, members }, turn)?;
    }
    Ok(())
}

/// A device of ours is no more.
pub(super) fn part(
    rows: Rows<'_>,
    address: Address,
    turn: &mut Turn<'_>,
) -> Result<(), ProfileError> {
    forget_device(rows, address, turn)?;
    turn.tell(Event::DeviceRemoved { device_id: address.device_id });
    Ok(())
}

/// The relay says that there are others than we thought.
pub(super) fn heard(
    rows: Rows<'_>,
    local: &LocalParty,
    mismatch: &DeviceMismatch,
    turn: &mut Turn<'_>,
) -> Result<(), ProfileError> {
    let device = |id: &u32| DeviceId::try_from(*id).ok();
    for gone in mismatch.extra.iter().filter_map(device) {
        let address = Address::new(local.address.service_id, gone);
        if rows.device(address)?.is_some() {
            part(rows, address, turn)?;
        }
    }
    mismatch.missing.iter().filter_map(device).try_for_each(|it| meet(rows, local, it, turn))
}

/// An account that has another device is a peer of its own, under the key that it has.
fn know_ourselves(rows: Rows<'_>, local: &LocalParty) -> Result<(), ProfileError> {
    let (us, identity) = (local.address.service_id, Some(local.identity.identity_key()));
    let known = rows.peer(us)?.unwrap_or(Peer::unknown(us));
    rows.save_peer(&Peer { identity, ..known })
}

/// A new device begins with the one that has linked it, and tells all that it is there.
pub(crate) fn linked_by(
    rows: Rows<'_>,
    local: &LocalParty,
    by: DeviceId,
    now: Timestamp,
) -> Result<(), ProfileError> {
    let us = local.address.service_id;
    know_ourselves(rows, local)?;
    rows.save_device(&Device::unknown(Address::new(us, by)))?;
    let content = Content::new(Body::Nothing, rows.timestamp(now)?);
    rows.put_out(us, Form::Notice, &content)?;
    Ok(())
}

pub(super) fn contact(peer: &Peer) -> Contact {
    Contact {
        account: peer.account,
        username: peer.username.clone(),
        identity: peer.identity,
        verified: peer.verified,
        access_key: peer.access_key,
    }
}

/// Another device knows somebody. What this one knows itself stands.
pub(super) fn take_contact(
    rows: Rows<'_>,
    us: ServiceId,
    told: Contact,
) -> Result<(), ProfileError> {
    if told.account == us {
        return Ok(());
    }
    let known = rows.peer(told.account)?.unwrap_or(Peer::unknown(told.account));
    let same = known.identity.is_none() || known.identity == told.identity;
    rows.save_peer(&Peer {
        username: known.username.clone().or(told.username),
        identity: known.identity.or(told.identity),
        verified: known.verified || (same && told.verified && told.identity.is_some()),
        access_key: known.access_key.or(told.access_key),
        ..known
    })
}

impl Engine {
    /// Our account's id.
    pub(super) fn us(&self) -> ServiceId {
        self.local.address.service_id
    }

    /// Another device of our account; `None`: it is this one.
    fn other(&self, device: DeviceId) -> Option<Address> {
        (device != self.local.address.device_id).then(|| Address::new(self.us(), device))
    }

    /// These devices of ours exist, by their numbers.
    pub(super) fn own_devices(
        &mut self,
        result: Result<Devices, ServerError>,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let us = self.us();
        self.device_expected = self.store.rows().device_expected()?;
        let Ok(devices) = result else {
            // Without a need it is asked with the next connection.
            let needed =
                self.device_expected.is_some() || self.store.rows().first_waiting(us)?.is_some();
            self.devices_request =
                if needed { self.devices_request.failed(turn) } else { Request::Idle };
            return Ok(());
        };
        self.devices_request = Request::Idle;
        let ids = devices.devices.iter().map(|device| DeviceId::try_from(device.device_id).ok());
        let ids: Vec<DeviceId> = ids.flatten().collect();
        self.reconcile(&ids, turn)?;
        let (asked, last) = self.devices_asked;
        if self.device_expected.is_some_and(|until| until < asked) {
            self.store.commit(|rows| rows.no_device_expected(asked))?;
            self.device_expected = None;
        }
        if !self.has_others() && self.store.rows().first_waiting(us)?.is_some() {
            // Whatever comes later was not there for what was written before we asked.
            self.store.commit(|rows| rows.delete_waiting(us, last))?;
            self.tell_if_empty(turn)?;
        }
        self.pump(us, turn)
    }

    /// Asks who is there.
    pub(super) fn want_devices(&mut self, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        if self.link != Link::Down && self.devices_request == Request::Idle {
            self.devices_request = Request::OnItsWay { attempt: 0 };
            self.ask_devices(turn)?;
        }
        Ok(())
    }

    pub(super) fn ask_devices(&mut self, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        self.devices_asked = (turn.now, self.store.rows().outbox_last()?);
        turn.actions.push(Action::FetchDevices);
        Ok(())
    }

    /// Up to this time a device may be added to the account without our hearing of it.
    pub(crate) fn expect_device(&mut self, until: Timestamp) -> Result<(), ProfileError> {
        self.device_expected = self.store.commit(|rows| {
            rows.expect_device(until)?;
            rows.device_expected()
        })?;
        Ok(())
    }

    /// Whether a list of the devices is due that settles whether one has come.
    pub(super) fn is_list_due(&self, now: Timestamp) -> bool {
        self.device_expected.is_some_and(|until| until < now)
    }

    /// Of our devices there are these, this one perhaps among them.
    pub(super) fn reconcile(
        &mut self,
        ids: &[DeviceId],
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let there: Vec<Address> = ids.iter().filter_map(|id| self.other(*id)).collect();
        let known: Vec<Address> =
            self.store.rows().devices(self.us())?.iter().map(|device| device.address).collect();
        if there == known {
            return Ok(());
        }
        let local = &self.local;
        self.store.commit(|rows| {
            let mut gone = known.iter().filter(|it| !there.contains(it));
            gone.try_for_each(|it| part(rows, *it, turn))?;
            there.iter().try_for_each(|it| meet(rows, local, it.device_id, turn))
        })
    }

    /// A device was linked by us.
    pub(crate) fn device_linked(
        &mut self,
        device: DeviceId,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        if self.other(device).is_none() {
            return Ok(());
        }
        let local = &self.local;
        self.store.commit(|rows| meet(rows, local, device, turn))?;
        self.pump_stored(self.us(), turn);
        Ok(())
    }

    /// A device was removed by us.
    pub(crate) fn device_removed(
        &mut self,
        device: DeviceId,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let Some(address) = self.other(device) else { return Ok(()) };
        self.store.commit(|rows| match rows.device(address)? {
            Some(_) => part(rows, address, turn),
            None => Ok(()),
        })?;
        if !self.has_others() {
            // It may have brought another one in.
            self.expect_device(turn.now)?;
        }
        self.pump_stored(address.service_id, turn);
        Ok(())
    }

    /// Hands what was said before to another device.
    ///
    /// # Errors
    /// [`DeviceError`]; nothing was stored.
    pub(crate) fn send_history(
        &mut self,
        device: DeviceId,
        archive: AttachmentPointer,
        turn: &mut Turn<'_>,
    ) -> Result<(), DeviceError> {
        let address = self.other(device).ok_or(DeviceError::NoSuchDevice { device })?;
        let us = address.service_id;
        let content = Content::new(Body::Sync(Sync::History(archive)), turn.now);
        content.check().map_err(DeviceError::Unreadable)?;
        self.store.commit(|rows| {
            if rows.device(address)?.is_none() {
                return Err(DeviceError::NoSuchDevice { device });
            }
            let content = Content { timestamp: rows.timestamp(turn.now)?, ..content };
            rows.insert_outbox(us, Some(device), Form::Notice, &content.encode())?;
            Ok(())
        })?;
        self.pump_stored(us, turn);
        Ok(())
    }

    /// Somebody is known now, or better than before.
    pub(crate) fn contact_known(
        &mut self,
        account: ServiceId,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let us = self.us();
        let peer = self.store.rows().peer(account)?.filter(|peer| peer.account != us);
        let Some(peer) = peer.filter(|_| self.has_others()) else { return Ok(()) };
        self.store.commit(|rows| tell(rows, us, || Sync::Contacts(vec![contact(&peer)]), turn))?;
        self.pump_stored(us, turn);
        Ok(())
    }

    /// Whether the account has other devices that we know of. Where that cannot be read, what follows says so.
    pub(super) fn has_others(&self) -> bool {
        self.store.rows().has_devices(self.us()).unwrap_or(true)
    }

    /// No other device is left: what waits for them goes to nobody.
    pub(super) fn alone(&mut self, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        let us = self.us();
        self.store.commit(|rows| {
            let gone = rows.devices(us)?;
            gone.iter().try_for_each(|device| part(rows, device.address, turn))?;
            rows.refuse_all(us)
        })?;
        self.landed(us, turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Input;
    use crate::engine::flight::Stage;
    use crate::event::Failure;
    use crate::stage::{Person, Relay, event};
    use crate::store::Store;
    use crate::transport::SubmitError;
    use bytes::Bytes;
    use tuckseal::content::MAX_NAME_BYTES;
    use tuckseal::service::Envelope;
    use tuckseal::{AttachmentKeys, DecodeError, IdentityKey, IdentityKeyPair};

    const US: ServiceId = ServiceId::aci([1; 16]);
    const THEM: ServiceId = ServiceId::aci([2; 16]);

    fn key() -> IdentityKey {
        IdentityKeyPair::generate(&mut rand::rng()).identity_key()
    }

    /// What is known of somebody when another device has told this.
    fn after(known: Option<&Peer>, told: Contact) -> Option<Peer> {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), crate::store::Profile::Create).unwrap();
        store
            .commit(|rows| {
                known.map(|known| rows.save_peer(known)).transpose()?;
                take_contact(rows, US, told)?;
                rows.peer(THEM)
            })
            .unwrap()
    }

    #[test]
    fn what_another_device_knows_of_somebody_adds_to_what_this_one_knows_and_changes_nothing() {
        let (key, other) = (key(), key());
        let told = Contact {
            account: THEM,
            username: Some("bob".into()),
            identity: Some(key),
            verified: true,
            access_key: Some([7; 16]),
        };
        let new = after(None, told.clone()).unwrap();
        assert_eq!(contact(&new), told);
        let known =
            Peer { identity: Some(other), access_key: Some([8; 16]), ..Peer::unknown(THEM) };
        let kept = after(Some(&known), told.clone()).unwrap();
        assert_eq!((kept.identity, kept.access_key), (Some(other), Some([8; 16])));
        assert!(!kept.verified, "they have verified another key");
        let known = Peer { identity: Some(key), ..Peer::unknown(THEM) };
        assert!(after(Some(&known), told.clone()).unwrap().verified);
        let unsure = Contact { identity: None, ..told.clone() };
        assert!(!after(None, unsure).unwrap().verified);
        assert!(after(None, Contact { account: US, ..told }).is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_archive_that_no_device_would_take_is_not_handed_over() {
        let relay = Relay::start().await;
        let alice = Person::register(&relay, "alice").await;
        let send = |bytes: usize| {
            let archive = AttachmentPointer {
                path: String::new(),
                keys: AttachmentKeys::generate(&mut rand::rng()),
                digest: [0; 32],
                size: 1,
                incremental: None,
                content_type: String::new(),
                file_name: "x".repeat(bytes),
                preview: Bytes::new(),
            };
            alice.client.send_history(DeviceId::new(2).unwrap(), archive)
        };
        let refused = send(MAX_NAME_BYTES + 1).await;
        let field = DecodeError::Field { field: "file_name" };
        assert!(matches!(refused, Err(DeviceError::Unreadable(found)) if found == field));
        let taken = send(MAX_NAME_BYTES).await;
        assert!(matches!(taken, Err(DeviceError::NoSuchDevice { .. })), "{taken:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_stranger_says_that_we_did_is_not_believed() {
        let relay = Relay::start().await;
        let [alice, bob] =
            [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
        let (us, key) = (alice.client.account(), key());
        let sent = Transcript {
            to: Some(THEM),
            timestamp: Timestamp::from_millis(1),
            data: Data::text("!"),
        };
        let contact = Contact {
            account: THEM,
            username: Some("carol".into()),
            identity: Some(key),
            verified: true,
            access_key: None,
        };
        for sync in [Sync::Sent(sent), Sync::Contacts(vec![contact])] {
            let put = move |engine: &mut Engine, turn: &mut Turn<'_>| {
                engine.store.commit(|rows| {
                    let content = Content::new(Body::Sync(sync), rows.timestamp(turn.now)?);
                    rows.put_out(us, Form::Notice, &content)
                })
            };
            bob.client.shell.call(put).await.unwrap();
        }
        let mut events = alice.client.events();
        let _running = [alice.spawn(), bob.spawn()];
        let counted = |event| match event {
            Event::Failure { reason: Failure::Unsupported, account, count: 2 } => account,
            _ => None,
        };
        assert_eq!(event(&mut events, counted).await, bob.client.account());
        bob.send(&alice, "hello").await;
        assert_eq!(alice.next().await.text, "hello");
        assert_eq!(alice.client.inbox().await.unwrap().len(), 1);
        let contacts = alice.client.contacts().await.unwrap();
        assert!(contacts.iter().all(|contact| contact.account == bob.client.account()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_device_whose_first_message_cannot_be_read_is_told_of_all_the_same() {
        let relay = Relay::start().await;
        let phone = Person::register(&relay, "alice").await;
        let request = crate::LinkRequest::new();
        let offer = phone.client.offer_link(&request.code()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let linked = crate::Client::link(folder.path(), &request, &offer.code, "", None).await;
        let laptop = Person::of(linked.unwrap(), folder);
        let running = laptop.spawn();
        laptop.sent().await;
        running.stop().await;
        // The laptop has used a prekey that the phone does not know.
        let phone = phone.tampered("UPDATE signed_prekey SET id = id + 100").await;
        let mut events = phone.client.events();
        let delivered = Input::Delivered(waiting(&relay));
        phone.client.shell.call(|engine, turn| engine.handle(delivered, turn)).await.unwrap();
        let asked = |event| match event {
            Event::AskedAgain { device_id, .. } => Some(device_id),
            Event::DeviceLinked { device_id } => Some(device_id),
            _ => None,
        };
        let second = DeviceId::new(2).unwrap();
        assert_eq!([event(&mut events, asked).await, event(&mut events, asked).await], [second; 2]);
        let rows = |engine: &mut Engine, _: &mut Turn<'_>| engine.store.rows().device_expected();
        assert!(phone.client.shell.call(rows).await.unwrap().is_some(), "until a list tells");
    }

    /// What the relay has for the first device.
    fn waiting(relay: &Relay) -> Vec<Envelope> {
        let relayed = rusqlite::Connection::open(relay.folder.path().join("tuckseal.db")).unwrap();
        let sql = "SELECT received_ms, body FROM envelope WHERE mailbox = 1 ORDER BY seq";
        let mut statement = relayed.prepare(sql).unwrap();
        let envelope = |row: &rusqlite::Row<'_>| {
            let (at, content): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let id = vec![at as u8; 16].into();
            Ok(Envelope { id, server_timestamp_ms: at as u64, content: content.into() })
        };
        let envelopes = statement.query_map((), envelope).unwrap();
        envelopes.collect::<Result<Vec<_>, _>>().unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_relay_that_names_this_very_device_or_one_that_never_was_changes_nothing() {
        let relay = Relay::start().await;
        let alice = Person::register(&relay, "alice").await;
        let us = alice.client.account();
        let (this, other) = (DeviceId::PRIMARY, DeviceId::new(2).unwrap());
        let heard = move |engine: &mut Engine, turn: &mut Turn<'_>| {
            engine.handle(Input::Connected, turn)?;
            engine.device_linked(other, turn)?;
            let (message, submission_id, body) = (1, [0; 16], bytes::Bytes::new());
            let stage = Stage::Submission { message, submission_id, body };
            engine.flights.remove(&us);
            engine.launch(us, stage, turn)?;
            let ticket = engine.last_ticket;
            let (named, never) = (this.get().into(), 9);
            let mismatch =
                DeviceMismatch { missing: vec![named], extra: vec![named, never], stale: vec![] };
            let result = Err(SubmitError::Devices(mismatch));
            engine.handle(Input::Submitted { account: us, ticket, result }, turn)?;
            engine.store.rows().devices(us)
        };
        let mut events = alice.client.events();
        let devices = alice.client.shell.call(heard).await.unwrap();
        assert_eq!(devices.iter().map(|it| it.address.device_id).collect::<Vec<_>>(), [other]);
        let linked = |event| match event {
            Event::DeviceRemoved { device_id } => Some(Err(device_id)),
            Event::DeviceLinked { device_id } => Some(Ok(device_id)),
            _ => None,
        };
        assert_eq!(event(&mut events, linked).await, Ok(other));
        alice
            .client
            .shell
            .call(move |engine, turn| engine.device_removed(other, turn))
            .await
            .unwrap();
        assert_eq!(event(&mut events, linked).await, Err(other), "the first that was removed");
    }

    /// Bob's second device is heard of while something waits that was encrypted for the first alone.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_waits_comes_to_a_device_that_is_heard_of_before_what_is_written_later() {
        let relay = Relay::start().await;
        let [alice, bob] =
            [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
        let running = [alice.spawn(), bob.spawn()];
        alice.send(&bob, "hello").await;
        assert_eq!(bob.next().await.text, "hello");
        alice.sent().await;
        bob.sent().await;
        for running in running {
            running.stop().await;
        }
        let request = crate::LinkRequest::new();
        let offer = bob.client.offer_link(&request.code()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let linked = crate::Client::link(folder.path(), &request, &offer.code, "", None).await;
        let laptop = Person::of(linked.unwrap(), folder);

        alice.send(&bob, "first").await;
        let running = laptop.spawn();
        laptop.send(&alice, "from the laptop").await;
        laptop.sent().await;
        running.stop().await;
        // Alice gets what the relay has for her, and nothing of hers leaves.
        let delivered = Input::Delivered(waiting(&relay));
        alice.client.shell.call(|engine, turn| engine.handle(delivered, turn)).await.unwrap();
        assert!(alice.client.inbox().await.unwrap().iter().any(|it| it.text == "from the laptop"));
        alice.send(&bob, "second").await;

        let _running = [alice.spawn(), laptop.spawn()];
        assert_eq!([laptop.next().await.text, laptop.next().await.text], ["first", "second"]);
    }
}
