//! A published client of tus, tuspy, uploads: killed in the middle, started again, and the bytes are those of the file.

use std::path::Path;

use reqwest::Method;
use tuckseal::service::AttachmentSlot;

use crate::attachments::{Place, S3, bare};
use crate::peers::{Peer, python, script};
use crate::world::Party;

const SIZE: usize = 3_000_000;

fn tuspy(party: &Party, folder: &Path) -> Option<Peer> {
    let mut python = python("uploads by a published client of tus")?;
    python.arg(script("tus_upload.py")).arg(format!("http://{}/v1/attachments", party.address));
    python.arg(party.bearer()).arg(folder.join("file")).arg(folder.join("notes"));
    Some(Peer::start(&mut python))
}

async fn killed_client_goes_on_and_the_bytes_are_those_of_the_file(place: Place) {
    let world = place.world(|_| ()).await;
    let alice = world.party("alice").await;
    let folder = tempfile::tempdir().unwrap();
    let file: Vec<u8> = (0..SIZE).map(|n| (n * 31 % 251) as u8).collect();
    std::fs::write(folder.path().join("file"), &file).unwrap();
    let Some(mut first) = tuspy(&alice, folder.path()) else { return };
    assert_eq!(first.line().await["begins"], 0);
    let created = first.line().await["created"].as_str().unwrap().to_owned();
    let slot: AttachmentSlot =
        prost::Message::decode(hex::decode(created).unwrap().as_slice()).unwrap();
    let mut come = 0;
    while come < SIZE as u64 / 3 {
        come = first.line().await["offset"].as_u64().unwrap();
    }
    drop(first);

    let mut second = tuspy(&alice, folder.path()).unwrap();
    let begins = second.line().await["begins"].as_u64().unwrap();
    assert!(come <= begins && begins < SIZE as u64, "{come} {begins}");
    let mut said = second.line().await;
    while said["done"] != true {
        assert!(said["offset"].is_u64(), "it did not go on: {said}");
        said = second.line().await;
    }
    let read = bare(&alice, Method::GET, &slot.download).send().await.unwrap();
    assert!(read.bytes().await.unwrap() == file);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_client_of_tus_goes_on_in_a_folder() {
    killed_client_goes_on_and_the_bytes_are_those_of_the_file(Place::Folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_client_of_tus_goes_on_in_a_bucket() {
    let Some(s3) = S3::start().await else { return };
    killed_client_goes_on_and_the_bytes_are_those_of_the_file(Place::Bucket(Box::new(s3))).await;
}
