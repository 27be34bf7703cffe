//! The incremental MAC (W§18.1), the one parser of attachments so far.

use tuckseal::{ChunkSize, IncrementalMac, IncrementalVerifier};

/// `chunk 1 | piece 1 | values 1 | list 32 · values | data`: fed in pieces, nothing comes out that is
/// not the data's beginning, and all of it for the list that belongs to it alone.
pub fn incremental_mac(data: &[u8]) {
    const KEY: &[u8] = b"key";
    let Some(([chunk, piece, values], rest)) = data.split_first_chunk() else { return };
    let (chunk, piece) = (u32::from(*chunk), usize::from(*piece).max(1));
    let Ok(chunk) = ChunkSize::new(chunk) else { return };
    let (list, data) = rest.split_at(rest.len().min(32 * usize::from(*values)));

    let mut mac = IncrementalMac::new(KEY, chunk);
    data.chunks(piece).for_each(|piece| mac.update(piece));
    let honest = mac.finish();
    assert_eq!(honest.len(), 32 * (data.len() / chunk.get() as usize + 1));
    assert_eq!(verify(KEY, chunk, &honest, data, piece), (data.len(), true));
    let (released, whole) = verify(KEY, chunk, list, data, piece);
    assert_eq!(whole, list == honest);
    assert!(whole || released % chunk.get() as usize == 0, "a part of a chunk came out");
}

/// How much came out, and whether the end was reached.
fn verify(key: &[u8], chunk: ChunkSize, list: &[u8], data: &[u8], piece: usize) -> (usize, bool) {
    let Ok(mut verifier) = IncrementalVerifier::new(key, chunk, list) else { return (0, false) };
    let mut out = Vec::new();
    let fed = data.chunks(piece).all(|piece| verifier.update(piece, &mut out).is_ok());
    let whole = verifier.finish(&mut out).is_ok();
    assert!(data.starts_with(&out), "something else came out");
    assert!(fed || !whole, "whole after a mismatch");
    (out.len(), whole)
}
