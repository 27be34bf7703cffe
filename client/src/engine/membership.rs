//! Who is in a group: what its members tell each other of it, in whatever order that comes; and whose messages to it count.

use sha2::{Digest as _, Sha256};
use tuckseal::content::{Body, Content, Data, GroupChange, GroupContext};
use tuckseal::{Address, ServiceId, Timestamp};

use super::Turn;
use super::deliver::Came;
use super::receive::tell_all;
use super::recovery::digest;
use crate::event::{Event, Failure};
use crate::message::GroupId;
use crate::store::{Ahead, AheadForm, Digest, Group, ProfileError, Rows, Standing};

/// Groups that one account can make us a member of before we have written to one of them, changed or left it.
const UNANSWERED_MAX: u64 = 200;

/// A message to a group, or a change of it. What is of a revision that we have not heard of is not judged by the members
/// that we know, who may be others by then: it waits for the change. A revision that somebody makes up who was removed
/// gains them nothing: until they are in the group again it waits, and in the end it goes.
pub(super) fn take(
    rows: Rows<'_>,
    came: Came,
    missing: u64,
    data: Data,
) -> Result<Vec<Event>, ProfileError> {
    let Some(GroupContext { id, revision, change }) = data.group.clone() else {
        return Ok(Vec::new());
    };
    let (id, account) = (GroupId(id), came.sender.service_id);
    let is_ahead = |known: &Group| revision > known.revision;
    let Some(change) = change else {
        let group = rows.group(id)?;
        return if group.as_ref().is_none_or(|group| is_writer(group, account)) {
            Ok(vec![take_written(rows, came, missing, data)?])
        } else if group.as_ref().is_some_and(is_ahead) {
            wait(rows, came, id, revision, AheadForm::Message, data)
        } else {
            Ok(vec![not_a_member(account)])
        };
    };
    let form = match change {
        GroupChange::State { .. } => AheadForm::State,
        _ => AheadForm::Left,
    };
    let mut events = Vec::new();
    let taken = take_change(rows, account, id, revision, change)?;
    if rows.group(id)?.as_ref().is_none_or(is_ahead) {
        events.extend(wait(rows, came, id, revision, form, data)?);
    }
    let is_news = matches!(taken, Some(Event::GroupChanged { .. }));
    events.extend(taken);
    if is_news {
        release(rows, id, &mut events)?;
    }
    Ok(events)
}

/// Members write to a group that we are in. Of a group that we have not heard of yet, nobody knows.
pub(super) fn may_write(
    rows: Rows<'_>,
    id: GroupId,
    account: ServiceId,
) -> Result<bool, ProfileError> {
    Ok(rows.group(id)?.is_none_or(|group| is_writer(&group, account)))
}

fn is_writer(group: &Group, account: ServiceId) -> bool {
    group.standing == Standing::Member && group.members.contains(&account)
}

/// A message of somebody who may write to the group.
fn take_written(
    rows: Rows<'_>,
    came: Came,
    missing: u64,
    data: Data,
) -> Result<Event, ProfileError> {
    let content = Content::new(Body::Data(data), came.sent);
    // A relay that takes an upload and says that it refuses it has it sent a second time, under a number of its own.
    if rows.see(&name(came.sender, &content))? {
        let (account, reason) = (Some(came.sender.service_id), Failure::Duplicate);
        return Ok(Event::Failure { account, reason, count: 1 });
    }
    Ok(Event::Message(rows.insert_inbox(came.sender, came.sent, missing, content)?))
}

/// Names a message: a device gives no two of its messages the same time.
fn name(sender: Address, content: &Content) -> Digest {
    let (account, device) = (sender.service_id.uuid(), sender.device_id.get());
    digest(&[&account[..], &[device], &content.encode()].concat())
}

fn not_a_member(account: ServiceId) -> Event {
    Event::Failure { account: Some(account), reason: Failure::NotAMember, count: 1 }
}

/// Keeps what is ahead of the group.
fn wait(
    rows: Rows<'_>,
    came: Came,
    id: GroupId,
    revision: u32,
    form: AheadForm,
    data: Data,
) -> Result<Vec<Event>, ProfileError> {
    let Came { sender, since, sent } = came;
    let content = Content::new(Body::Data(data), sent).encode();
    let gone = rows.insert_ahead(id, &Ahead { sender, since, sent, revision, form, content })?;
    Ok(vec![not_a_member(sender.service_id); gone])
}

/// Takes what was ahead of a group and is not any more, in the order in which it came, as far as the group goes on by it.
fn release(rows: Rows<'_>, id: GroupId, events: &mut Vec<Event>) -> Result<(), ProfileError> {
    while let Some(group) = rows.group(id)?
        && let Some(Ahead { sender, since, sent, content, .. }) = rows.take_ahead(&group)?
    {
        let damaged = ProfileError::Damaged { what: "ahead" };
        let Ok(Content { body: Body::Data(mut data), .. }) = Content::decode(&content) else {
            return Err(damaged);
        };
        let Some(context) = &mut data.group else { return Err(damaged) };
        match context.change.take() {
            Some(change) => {
                let account = sender.service_id;
                events.extend(take_change(rows, account, id, context.revision, change)?);
            }
            None if may_write(rows, id, sender.service_id)? => {
                events.push(take_written(rows, Came { sender, since, sent }, 0, data)?);
            }
            None => events.push(not_a_member(sender.service_id)),
        }
    }
    Ok(())
}

/// Drops what has waited since before a time, in which whoever could send the change again has forgotten it.
pub(super) fn trim(
    rows: Rows<'_>,
    before: Timestamp,
    turn: &mut Turn<'_>,
) -> Result<(), ProfileError> {
    let gone = rows.trim_ahead(before)?;
    tell_all(rows, gone.into_iter().map(not_a_member).collect(), turn)
}

/// A member changes the group: the higher revision holds, and of two with the same number the one whose
/// digest is larger, so that all come to the same. What the app hears of it.
fn take_change(
    rows: Rows<'_>,
    account: ServiceId,
    id: GroupId,
    revision: u32,
    change: GroupChange,
) -> Result<Option<Event>, ProfileError> {
    let us = rows.own_account()?;
    let known = rows.group(id)?;
    let was_member = known.as_ref().is_some_and(|known| known.standing == Standing::Member);
    let group = match (change, known) {
        (GroupChange::State { name, members }, None) => {
            // Who makes a group is in it.
            if !members.contains(&account) || !members.contains(&us) {
                return Ok(None);
            }
            Group { id, name, revision, standing: Standing::Member, members }
        }
        (GroupChange::State { name, members }, Some(known)) => {
            let standing = if members.contains(&us) { Standing::Member } else { Standing::Former };
            let new = Group { id, name, revision, standing, members };
            // Those who were members when we left may not be any more.
            let takes_us_back = known.standing == Standing::Former
                && [account, us].iter().all(|it| new.members.contains(it));
            let may = known.members.contains(&account) || takes_us_back;
            if !may || rank(&new) <= rank(&known) {
                return Ok(None);
            }
            new
        }
        (GroupChange::Left, Some(known)) => {
            // Whom a later revision has they have been taken back by.
            if revision < known.revision || !known.members.contains(&account) {
                return Ok(None);
            }
            let members = known.members.iter().filter(|it| **it != account).copied().collect();
            // Another device of ours speaks for us.
            let standing = if account == us { Standing::Former } else { known.standing };
            Group { members, standing, ..known }
        }
        _ => return Ok(None),
    };
    let is_invited = account != us && !was_member && group.standing == Standing::Member;
    if is_invited && rows.unanswered(account, id)? >= UNANSWERED_MAX {
        let reason = Failure::TooManyGroups;
        return Ok(Some(Event::Failure { account: Some(account), reason, count: 1 }));
    }
    rows.save_group(&group)?;
    if is_invited {
        rows.set_inviter(id, account)?;
    } else if account == us {
        rows.answer_inviter(id)?;
    }
    Ok(Some(Event::GroupChanged { group: id }))
}

fn rank(group: &Group) -> (u32, [u8; 32]) {
    let mut members: Vec<_> = group.members.iter().map(|member| *member.uuid()).collect();
    members.sort_unstable();
    let hash = Sha256::new().chain_update(&group.name).chain_update(members.concat());
    (group.revision, hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Settings, deliver, new_profile};
    use crate::store::{Account, Own, Profile, Store};
    use proptest::prelude::*;
    use tuckseal::{DeviceId, IdentityKeyPair};

    const US: ServiceId = ServiceId::aci([1; 16]);
    const BOB: ServiceId = ServiceId::aci([2; 16]);
    const CAROL: ServiceId = ServiceId::aci([3; 16]);
    const DAVE: ServiceId = ServiceId::aci([4; 16]);
    const GROUP: GroupId = GroupId([9; 16]);
    const AT: Timestamp = Timestamp::from_millis(1_000);

    fn told(revision: u32, change: Option<GroupChange>, text: &str) -> Data {
        let group = Some(GroupContext { id: GROUP.0, revision, change });
        Data { group, ..Data::text(text) }
    }

    fn text(from: ServiceId, revision: u32, text: &str) -> (ServiceId, Data) {
        (from, told(revision, None, text))
    }

    fn state(from: ServiceId, revision: u32, members: &[ServiceId]) -> (ServiceId, Data) {
        let (name, members) = (revision.to_string(), members.to_vec());
        (from, told(revision, Some(GroupChange::State { name, members }), ""))
    }

    fn left(from: ServiceId, revision: u32) -> (ServiceId, Data) {
        (from, told(revision, Some(GroupChange::Left), ""))
    }

    /// What came of something.
    #[derive(Debug, Default, PartialEq)]
    struct Outcome {
        texts: Vec<String>,
        refused: usize,
        members: Vec<ServiceId>,
        is_member: bool,
    }

    fn store() -> (Store, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), Profile::Create).unwrap();
        let (mut rng, identity) = (rand::rng(), IdentityKeyPair::generate(&mut rand::rng()));
        let trust_root = *identity.identity_key().public_key();
        let (server, name) = (String::new(), String::new());
        let own =
            Own { server, name, identity, registration_id: 1, access_key: [0; 16], account: None };
        let address = Address::new(US, DeviceId::PRIMARY);
        let settings =
            Settings { one_time_prekeys: 0, one_time_kem_prekeys: 0, ..Settings::default() };
        let made = store.commit(|rows| {
            new_profile(rows, &own, &settings, &mut rng, AT)?;
            rows.set_account(&Account { address, token: [0; 32].into(), trust_root })
        });
        made.unwrap();
        (store, folder)
    }

    fn outcome(store: &mut Store, things: &[(ServiceId, Data)]) -> Outcome {
        let taken = store.commit(|rows| {
            let mut events = Vec::new();
            for (account, data) in things {
                let sender = Address::new(*account, DeviceId::PRIMARY);
                let came = Came { sender, since: AT, sent: AT };
                events.extend(take(rows, came, 0, data.clone())?);
            }
            let group = rows.group(GROUP)?;
            Ok::<_, ProfileError>((events, group))
        });
        let (events, group) = taken.unwrap();
        let mut outcome = Outcome::default();
        for event in events {
            match event {
                Event::Message(message) => outcome.texts.push(message.text),
                Event::Failure { reason: Failure::NotAMember, .. } => outcome.refused += 1,
                _ => {}
            }
        }
        outcome.is_member = group.as_ref().is_some_and(|it| it.standing == Standing::Member);
        outcome.members = group.map(|it| it.members).unwrap_or_default();
        outcome
    }

    fn after(things: &[(ServiceId, Data)]) -> Outcome {
        outcome(&mut store().0, things)
    }

    #[test]
    fn who_left_and_was_taken_back_stays_when_the_leaving_comes_late() {
        let all = [US, BOB, CAROL];
        let back = [state(BOB, 5, &all), state(BOB, 6, &all), left(CAROL, 5)];
        let outcome = after(&[&back[..], &[text(CAROL, 6, "here")]].concat());
        assert_eq!((outcome.members, outcome.texts), (all.to_vec(), vec!["here".to_owned()]));
        // Another device of ours has left, and we were taken back.
        assert!(after(&[state(BOB, 5, &all), state(BOB, 6, &all), left(US, 5)]).is_member);
        assert!(!after(&[state(BOB, 5, &all), left(US, 5)]).is_member);
    }

    #[test]
    fn who_leaves_a_revision_that_has_not_come_is_out_at_once_and_after_it() {
        let all = [US, BOB, CAROL];
        let things = [state(BOB, 5, &all), left(CAROL, 6)];
        assert_eq!(after(&things).members, [US, BOB]);
        let things = [&things[..], &[state(BOB, 6, &all)]].concat();
        assert_eq!(after(&things).members, [US, BOB]);
        let unknown = [left(CAROL, 0), state(BOB, 0, &all)];
        assert_eq!(after(&unknown).members, [US, BOB]);
    }

    #[test]
    fn a_message_that_is_sent_in_both_ways_is_shown_once() {
        let begun = state(BOB, 0, &[US, BOB, CAROL]);
        let texts = ["a", "a", "b", "a"].map(|it| text(BOB, 0, it));
        let outcome = after(&[&[begun][..], &texts, &[text(CAROL, 0, "a")]].concat());
        assert_eq!(outcome.texts, ["a", "b", "a"], "Bob's, once, and Carol's");
    }

    #[test]
    fn a_made_up_revision_lets_nobody_write_or_change_anything() {
        let (mut store, _folder) = store();
        let begun = [state(BOB, 0, &[US, BOB, CAROL]), state(BOB, 1, &[US, BOB])];
        let waits = Outcome { members: vec![US, BOB], is_member: true, ..Outcome::default() };
        assert_eq!(outcome(&mut store, &begun), waits);
        let made_up = [
            text(CAROL, u32::MAX, "listen"),
            state(CAROL, u32::MAX, &[US, CAROL]),
            text(CAROL, 3, ""),
        ];
        assert_eq!(outcome(&mut store, &made_up), waits);
        let next = [state(BOB, 2, &[US, BOB])];
        assert_eq!(outcome(&mut store, &next), waits);
        // The revision comes, and she is not in it.
        let next = [state(BOB, 3, &[US, BOB])];
        assert_eq!(outcome(&mut store, &next), Outcome { refused: 1, ..waits });

        let many: Vec<_> = (0..300).map(|_| text(CAROL, 9, "")).collect();
        assert_eq!(outcome(&mut store, &many).refused, 300 - 256 + 1, "those that came first");
        let gone = store.commit(|rows| {
            assert_eq!(rows.trim_ahead(AT)?, [], "not yet");
            rows.trim_ahead(Timestamp::from_millis(AT.as_millis() + 1))
        });
        assert_eq!(gone.unwrap(), [CAROL; 256]);
    }

    #[test]
    fn what_is_missing_before_a_change_is_told_also_when_a_message_waited_for_the_change() {
        let (mut store, _folder) = store();
        outcome(&mut store, &[state(BOB, 0, &[US, BOB]), text(CAROL, 1, "early")]);
        let (from, change) = state(BOB, 1, &[US, BOB, CAROL]);
        let sender = Address::new(from, DeviceId::PRIMARY);
        let kept = Content::new(Body::Data(change), AT).encode();
        let events = store
            .commit(|rows| deliver::deliver(rows, Came { sender, since: AT, sent: AT }, 2, &kept));
        let events = events.unwrap();
        let [
            Event::GroupChanged { .. },
            Event::Message(message),
            Event::Missing { account, count },
        ] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!((message.text.as_str(), message.missing_before), ("early", 0));
        assert_eq!((*account, *count), (BOB, 2));
    }

    #[test]
    fn one_account_puts_us_into_so_many_groups_until_we_say_something() {
        let (mut store, _folder) = store();
        let done = store.commit(|rows| {
            let invite = |account, number: u8, revision| {
                let group = Some(GroupContext {
                    id: [number; 16],
                    revision,
                    change: Some(GroupChange::State {
                        name: String::new(),
                        members: vec![account, US, DAVE],
                    }),
                });
                let sender = Address::new(account, DeviceId::PRIMARY);
                let came = Came { sender, since: AT, sent: AT };
                let events = take(rows, came, 0, Data { group, ..Data::default() })?;
                Ok::<_, ProfileError>(match &events[..] {
                    [Event::GroupChanged { .. }] => true,
                    [Event::Failure { reason: Failure::TooManyGroups, .. }] => false,
                    other => panic!("{other:?}"),
                })
            };
            for number in 0..200 {
                assert!(invite(BOB, number, 0)?);
            }
            assert!(!invite(BOB, 200, 0)? && invite(CAROL, 201, 0)?);
            assert!(invite(BOB, 0, 1)?, "of one that is there");
            rows.answer_inviter(GroupId([7; 16]))?;
            assert!(invite(BOB, 200, 0)? && !invite(BOB, 202, 0)?);
            assert!(invite(US, 202, 0)?, "another device of ours");
            assert_eq!(rows.peers()?.len(), 0, "whom nobody has written to");
            Ok::<_, ProfileError>(())
        });
        done.unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn in_whatever_order_it_comes_the_group_is_the_same_and_every_message_is_read(
            mut order in Just((0..8).collect::<Vec<usize>>()).prop_shuffle(),
        ) {
            let things = [
                state(BOB, 0, &[US, BOB]),
                text(BOB, 0, "b"),
                state(BOB, 1, &[US, BOB, CAROL]),
                text(CAROL, 1, "c"),
                state(CAROL, 2, &[US, BOB, CAROL, DAVE]),
                text(CAROL, 2, "cc"),
                text(DAVE, 2, "d"),
                left(DAVE, 2),
            ];
            // What one device sends comes in its order.
            for pair in [[6, 7], [3, 5]] {
                let at = pair.map(|it| order.iter().position(|other| *other == it).unwrap());
                order[at[0].min(at[1])] = pair[0];
                order[at[0].max(at[1])] = pair[1];
            }
            let things: Vec<_> = order.iter().map(|it| things[*it].clone()).collect();
            let mut outcome = after(&things);
            let of_carol = |text: &&String| text.starts_with('c');
            prop_assert_eq!(outcome.texts.iter().filter(of_carol).collect::<Vec<_>>(), ["c", "cc"]);
            outcome.texts.sort();
            prop_assert_eq!(outcome.texts, ["b", "c", "cc", "d"]);
            prop_assert_eq!((outcome.members, outcome.refused), (vec![US, BOB, CAROL], 0));
        }
    }
}
