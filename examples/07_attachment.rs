//! Attachments: a file too large for a message goes to the relay, what opens it into the message (W§18.1).

use rand::rngs::StdRng;
use std::error::Error;
use tuckseal::content::{AttachmentPointer, Body, Content, Data};
use tuckseal::*;

fn main() -> Result<(), Box<dyn Error>> {
    let mut rng: StdRng = rand::make_rng();
    let file = vec![b'.'; 200_000];

    // Alice encrypts the file piece by piece; a file on disk need never be in memory as a whole.
    let keys = AttachmentKeys::generate(&mut rng);
    let mut encryptor = AttachmentEncryptor::new(&keys, file.len() as u64, &mut rng)?;
    let mut uploaded = Vec::new();
    for piece in file.chunks(8 * 1024) {
        encryptor.update(piece, &mut uploaded)?;
    }
    let sealed = loop {
        match encryptor.finish(&mut uploaded)? {
            Sealing::More(rest) => encryptor = rest,
            Sealing::Done(sealed) => break sealed,
        }
    };
    println!("the file            {} bytes", sealed.size);
    println!("to the relay        {} bytes, five percent coarse", uploaded.len());
    println!("incremental values  {} bytes", sealed.incremental.values.len());

    // What Bob needs travels in a message, encrypted by the session.
    let pointer = AttachmentPointer {
        path: "/v1/attachments/example".into(),
        keys,
        digest: sealed.digest,
        size: sealed.size,
        incremental: Some(sealed.incremental),
        content_type: "text/plain".into(),
        file_name: "dots.txt".into(),
        preview: Default::default(),
    };
    let data = Data { attachments: vec![pointer], ..Data::text("Look at this.") };
    let now = Timestamp::from_millis(1_700_000_000_000);
    let content = Content::new(Body::Data(data), now).encode_padded();
    println!("in the message      {} bytes, padded", content.len());

    // Bob reads it, fetches the file, and checks all of it before he decrypts a byte.
    let Body::Data(read) = Content::decode_padded(&content)?.body else {
        return Err("another kind of content".into());
    };
    let pointer = read.attachments.first().ok_or("no attachment")?;
    let verified = verify(pointer, &uploaded);
    let (mut decryptor, mut opened) = (verified?, Vec::new());
    for piece in uploaded.chunks(8 * 1024) {
        decryptor.update(piece, &mut opened)?;
    }
    decryptor.finish(&mut opened)?;
    println!("Bob has             {} bytes, the same: {}", opened.len(), opened == file);

    // A relay that changes a byte, or keeps the end for itself, is found out.
    let cut = uploaded.split_last().ok_or("empty")?.1;
    println!("cut by a byte       {}", verify(pointer, cut).err().ok_or("taken")?);
    Ok(())
}

/// The first pass, over a file on disk as well as here.
fn verify(
    pointer: &AttachmentPointer,
    encrypted: &[u8],
) -> Result<AttachmentDecryptor, AttachmentError> {
    let incremental = pointer.incremental.as_ref();
    let mut verifier =
        AttachmentVerifier::new(&pointer.keys, &pointer.digest, pointer.size, incremental)?;
    encrypted.chunks(8 * 1024).try_for_each(|piece| verifier.update(piece))?;
    verifier.finish()
}
