//! The act in which Bob's account gets a second device, and loses it again.

use super::acts::settle;
use super::people::{Person, command};
use super::relay::Relay;
use super::texts::Texts;
use super::{ALICE, BOB, Outcome, PATIENCE};
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

const LAPTOP: &str = "bobs.laptop.of.the.demo";

/// `heard`: what Alice has sent to Bob so far, and Bob to Alice.
pub(super) async fn second(
    alice: &mut Person,
    bob: &mut Person,
    relay: &Relay,
    folder: &Path,
    texts: &Texts,
    heard: (Vec<String>, Vec<String>),
) -> Outcome<()> {
    let (mut at_bob, mut at_alice) = heard;
    let [first, second, third, last] = <[String; 4]>::try_from(texts.many("two devices", 4))
        .map_err(|_| "there should be four texts")?;
    bob.leave().await?;
    let mut laptop = link(bob, folder).await?;
    bob.come_online().await?;
    laptop.come_online().await?;

    alice.send(BOB, &first).await?;
    at_bob.push(first.clone());
    bob.has_received(ALICE, &at_bob).await?;
    laptop.has_received(ALICE, std::slice::from_ref(&first)).await?;
    println!("   Alice wrote once: Bob has it on both");
    laptop.send(ALICE, &second).await?;
    at_alice.push(second.clone());
    alice.has_received(BOB, &at_alice).await?;
    at_bob.push(second);
    bob.has_received("Bob's laptop", &at_bob).await?;
    bob.send(ALICE, &third).await?;
    at_alice.push(third.clone());
    alice.has_received(BOB, &at_alice).await?;
    laptop.has_received("Bob's first device", &[first, third]).await?;
    println!(
        "   Bob answered from each: Alice has both answers, and each device has what the other wrote"
    );

    settle(&mut [alice, bob, &mut laptop], relay).await?;
    laptop.leave().await?;
    bob.leave().await?;
    succeeds(bob, &["devices", "remove", "2"]).await?;
    bob.come_online().await?;
    alice.send(BOB, &last).await?;
    at_bob.push(last);
    bob.has_received(ALICE, &at_bob).await?;
    let listened = command(laptop.profile())?.args(["listen", "--once"]).output().await;
    let listened = listened.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&listened.stderr);
    if listened.status.success() || !said.contains("does not accept this device any more") {
        return Err(format!("the removed device should be refused, and it says: {said}"));
    }
    println!(
        "   Bob removed the second device: it is refused, and what Alice wrote then is on the first"
    );
    Ok(())
}

/// As a person does it: the code of the one is typed into the other, and the other's into the one.
async fn link(bob: &Person, folder: &Path) -> Outcome<Person> {
    let profile = folder.join(LAPTOP);
    let (mut laptop, mut shown) = start(&profile, &["link", "--name", "Bob's laptop"])?;
    let code = line_with(&mut shown, "tuckseal-link:").await?;
    let code = code.split_whitespace().last().unwrap_or_default().to_owned();
    let (offering, mut printed) = start(bob.profile(), &["devices", "link", &code])?;
    let mut offer = line_with(&mut printed, "tuckseal-offer:").await?;
    offer.push('\n');
    let mut typed = laptop.stdin.take().ok_or("no input")?;
    typed.write_all(offer.as_bytes()).await.map_err(|error| error.to_string())?;
    for mut process in [laptop, offering] {
        let ended = timeout(PATIENCE, process.wait()).await;
        let status = ended.map_err(|_| "linking does not end")?.map_err(|it| it.to_string())?;
        if !status.success() {
            return Err(format!("linking ended with {status}"));
        }
    }
    Ok(Person::of(LAPTOP, profile, bob.account().to_owned()))
}

type Output = tokio::io::Lines<BufReader<ChildStdout>>;

fn start(profile: &Path, arguments: &[&str]) -> Outcome<(Child, Output)> {
    let mut child = command(profile)?
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let output = child.stdout.take().ok_or("no output")?;
    Ok((child, BufReader::new(output).lines()))
}

async fn line_with(output: &mut Output, wanted: &str) -> Outcome<String> {
    let search = async {
        while let Ok(Some(line)) = output.next_line().await {
            if line.contains(wanted) {
                return Ok(line);
            }
        }
        Err(format!("{wanted} was not printed"))
    };
    timeout(PATIENCE, search).await.map_err(|_| format!("{wanted} is not printed"))?
}

async fn succeeds(person: &Person, arguments: &[&str]) -> Outcome<()> {
    let output = command(person.profile())?.args(arguments).output().await;
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
