//! The acts after the conversation: a session that breaks and heals, a file, a group.

use super::evidence;
use super::people::Person;
use super::person::Order;
use super::relay::Relay;
use super::texts::Texts;
use super::{ALICE, BOB, Outcome, PATIENCE};
use rusqlite::Connection;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;
use tuckseal::SessionRecord;

/// Most memory of a process that sends, keeps or fetches the file.
const MEMORY_KIB: u64 = 64 * 1024;
const FILE_MIB: usize = 50;
const MIB: usize = 1024 * 1024;

const CAROL: &str = "carol.of.the.demo";
const DAVE: &str = "dave.of.the.demo";
const EVE: &str = "eve.of.the.demo";
const FRANK: &str = "frank.of.the.demo";
const GROUP: &str = "the group of the demo";

/// Bob's session is overwritten while he is away; what he cannot read then comes again. What Bob has of Alice
/// in all afterwards.
pub(super) async fn broken_session(
    alice: &mut Person,
    bob: &mut Person,
    texts: &Texts,
    mut of_alice: Vec<String>,
) -> Outcome<Vec<String>> {
    bob.leave().await?;
    let empty = SessionRecord::new().encode().to_vec();
    let database = Connection::open(bob.database()).map_err(|error| error.to_string())?;
    let lost = database.execute("UPDATE device SET session = ?1", (empty,));
    if lost.map_err(|error| error.to_string())? == 0 {
        return Err("Bob had no session to lose".into());
    }
    drop(database);
    for text in texts.many("unreadable", 3) {
        alice.send(BOB, &text).await?;
        of_alice.push(text);
    }
    alice.flush().await?;
    bob.come_online().await?;
    bob.has_received(ALICE, &of_alice).await?;
    let (alice, bob) = (alice.status().await?.told, bob.status().await?.told);
    if bob.asked_again == 0 || alice.sessions_reset == 0 {
        return Err("the session was not broken".into());
    }
    println!(
        "   Bob could not read three messages, asked {} time, Alice began {} new session: he has all three",
        bob.asked_again, alice.sessions_reset
    );
    Ok(of_alice)
}

/// 50 MiB from Alice to Bob through the relay's store; nobody has all of it in memory.
pub(super) async fn file(
    alice: &mut Person,
    bob: &mut Person,
    relay: &Relay,
    folder: &Path,
    texts: &Texts,
) -> Outcome<()> {
    let path = folder.join("film");
    write_file(&path, texts).map_err(|error| error.to_string())?;
    alice.obey(&Order::SendFile { to: BOB.into(), path: path.clone() }).await?;
    alice.flush().await?;
    let came = bob.file().await?;
    if !same(&path, &came).map_err(|error| error.to_string())? {
        return Err("the file that came is not the one that was sent".into());
    }
    let peaks = [
        ("Alice", alice.status().await?.peak_kib),
        ("the relay", relay.peak_kib()),
        ("Bob", bob.status().await?.peak_kib),
    ];
    println!("   {FILE_MIB} MiB arrived, byte for byte");
    for (name, peak) in peaks {
        let Some(peak) = peak else { continue };
        println!("   {name} took at most {} MiB of memory", peak / 1024);
        if peak > MEMORY_KIB {
            return Err(format!("{name} took more than {} MiB", MEMORY_KIB / 1024));
        }
    }
    Ok(())
}

/// Begins with what no file of the relay may hold.
fn write_file(path: &Path, texts: &Texts) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let mut block = vec![0; MIB];
    for number in 0..FILE_MIB {
        rand::fill(&mut block[..]);
        let [mark, _] = texts.needles();
        if number == 0 {
            file.write_all(&mark)?;
            block.truncate(MIB - mark.len());
        } else {
            block.resize(MIB, 0);
        }
        file.write_all(&block)?;
    }
    Ok(())
}

fn same(one: &Path, other: &Path) -> std::io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut left, mut right) = (vec![0; MIB], vec![0; MIB]);
    loop {
        let read = one.read(&mut left)?;
        let (Some(left), Some(right)) = (left.get(..read), right.get_mut(..read)) else {
            return Ok(false);
        };
        other.read_exact(right)?;
        if left != right || read == 0 {
            return Ok(left == right);
        }
    }
}

/// Those who are in the group beside Alice and Bob, and who will be.
pub(super) async fn register_others(folder: &Path, relay: &Relay) -> Outcome<Vec<Person>> {
    let mut others = Vec::new();
    for name in [CAROL, DAVE, EVE, FRANK] {
        others.push(Person::register(name, folder, &relay.url()).await?);
    }
    Ok(others)
}

/// Five in a group; one is removed and reads nothing afterwards, one is added and reads from then on.
pub(super) async fn group(
    alice: &mut Person,
    bob: &mut Person,
    others: &mut [Person],
    texts: &Texts,
) -> Outcome<()> {
    for person in &mut *others {
        person.come_online().await?;
    }
    let [carol, dave, eve, frank] = others else {
        return Err("there should be four others".into());
    };
    let [first, second, third] = <[String; 3]>::try_from(texts.many("to the group", 3))
        .map_err(|_| "there should be three texts")?;
    let to_group = |text: &str| Order::SendToGroup { group: GROUP.into(), text: text.into() };

    let names = [BOB, CAROL, DAVE, EVE].map(str::to_owned).to_vec();
    alice.obey(&Order::CreateGroup { group: GROUP.into(), names }).await?;
    alice.obey(&to_group(&first)).await?;
    for person in [&mut *bob, &mut *carol, &mut *dave, &mut *eve] {
        person.has_read_in_groups(std::slice::from_ref(&first)).await?;
    }
    println!("   Alice wrote once: Bob, Carol, Dave and Eve have read it");

    alice.obey(&Order::RemoveFromGroup { group: GROUP.into(), name: EVE.into() }).await?;
    eve.sees_members(GROUP, 0).await?;
    alice.obey(&to_group(&second)).await?;
    for person in [&mut *bob, &mut *carol, &mut *dave] {
        person.has_read_in_groups(&[first.clone(), second.clone()]).await?;
    }
    // What comes after it has come, so it would have come.
    let farewell = texts.many("to eve", 1);
    for text in &farewell {
        alice.send(EVE, text).await?;
    }
    eve.has_received(ALICE, &farewell).await?;
    eve.has_read_in_groups(std::slice::from_ref(&first)).await?;
    println!(
        "   Eve was removed: what was written then has reached Bob, Carol and Dave, and not her"
    );

    alice.obey(&Order::AddToGroup { group: GROUP.into(), name: FRANK.into() }).await?;
    for person in [&mut *bob, &mut *carol, &mut *dave, &mut *frank] {
        person.sees_members(GROUP, 5).await?;
    }
    dave.obey(&to_group(&third)).await?;
    let all = [first, second, third.clone()];
    for person in [&mut *bob, &mut *carol] {
        person.has_read_in_groups(&all).await?;
    }
    frank.has_read_in_groups(std::slice::from_ref(&third)).await?;
    println!("   Frank was added: he has read what Dave wrote then, and nothing from before");
    Ok(())
}

/// Waits until everything has left and was fetched. Twice: what was fetched last may have been answered
/// with receipts.
pub(super) async fn settle(people: &mut [&mut Person], relay: &Relay) -> Outcome<()> {
    let quiet = async {
        let mut rounds = 0;
        loop {
            for person in &mut *people {
                person.flush().await?;
            }
            rounds = if evidence::counts(relay)?.envelopes == 0 { rounds + 1 } else { 0 };
            if rounds == 2 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let settled = tokio::time::timeout(PATIENCE, quiet).await;
    settled.map_err(|_| "envelopes stay at the relay")?
}
