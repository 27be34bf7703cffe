//! S§8.2–8.4. The erasure code: a payload of N chunks becomes 65,536, any N of which rebuild it.
//! What a payload means and when a chunk is expected is the braid's concern.
//!
//! Chunks travel in clear, so nothing here is secret.

use super::gf::{self, Dot, Octet, Row, Sums};
use alloc::{boxed::Box, vec::Vec};

/// Enough octets for the largest payload, the ek vector of 36 chunks.
const OCTETS: usize = 5;

/// One element per position, padded.
type Points = [Octet; OCTETS];

/// A piece of a payload: 32 bytes and the point at which the polynomials had these values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) index: u16,
    pub(super) data: Row,
}

/// A whole payload of 32·N bytes.
pub(super) type Whole<const N: usize> = Box<[Row; N]>;

/// Lays bytes out as chunks. Fewer bytes leave zeros, more are left out.
pub(super) fn rows<const N: usize>(parts: &[&[u8]]) -> Whole<N> {
    let mut whole = Box::new([[0; 32]; N]);
    let mut left = whole.as_flattened_mut();
    for part in parts {
        let len = part.len().min(left.len());
        let (to, rest) = left.split_at_mut(len);
        to.copy_from_slice(part.split_at(len).0);
        left = rest;
    }
    whole
}

/// The bytes of a payload.
#[allow(clippy::expect_used, reason = "the lengths are compared when compiled")]
pub(super) fn whole<const N: usize, const M: usize>(rows: &[Row; N]) -> &[u8; M] {
    const { assert!(M == 32 * N) };
    rows.as_flattened().first_chunk().expect("the lengths are equal")
}

/// Gives chunk after chunk of a payload, for as long as it is asked.
#[derive(Clone)]
pub(super) struct Encoder<const N: usize> {
    rows: Whole<N>,
    /// 32 bits; the wire has the lower 16 (S§8.3).
    next: u32,
}

impl<const N: usize> Encoder<N> {
    /// 1/∏(j − m) over the positions m ≠ j: known when compiled.
    const WEIGHTS: Points = systematic_weights(N);

    pub(super) fn new(rows: Whole<N>) -> Self {
        Self { rows, next: 0 }
    }

    pub(super) fn resumed(rows: Whole<N>, next: u32) -> Self {
        Self { rows, next }
    }

    pub(super) fn next_index(&self) -> u32 {
        self.next
    }

    pub(super) fn payload(&self) -> &[Row; N] {
        &self.rows
    }

    /// The chunk that is next; [`Self::advance`] moves on.
    pub(super) fn chunk(&self) -> Chunk {
        let index = self.next as u16;
        let data = match self.rows.get(usize::from(index)) {
            Some(row) => *row,
            None => {
                let coefficients = lagrange(&first_points::<N>(), &Self::WEIGHTS, index, N);
                let mut dot = Dot::default();
                for (coefficients, rows) in fours(&coefficients).zip(self.rows.chunks(4)) {
                    dot.add(coefficients, &Sums::new(rows));
                }
                dot.total()
            }
        };
        Chunk { index, data }
    }

    pub(super) fn advance(&mut self) {
        self.next = self.next.wrapping_add(1);
    }
}

/// What a chunk made of a decoder.
pub(super) enum Gathered<const N: usize> {
    /// More are needed: keep the chunk with [`Decoder::hold`].
    StillReceiving,
    /// It was the last one.
    Done(Whole<N>),
}

/// Gathers chunks; always fewer than N, since the Nth ends it.
#[derive(Clone, Default)]
pub(super) struct Decoder<const N: usize> {
    /// Ascending indices, each once.
    held: Vec<Chunk>,
}

impl<const N: usize> Decoder<N> {
    pub(super) fn new() -> Self {
        Self { held: Vec::new() }
    }

    pub(super) fn held(&self) -> &[Chunk] {
        &self.held
    }

    /// What this chunk, added to those that are held, makes. Changes nothing.
    pub(super) fn gather(&self, chunk: &Chunk) -> Gathered<N> {
        let Err(at) = self.position(chunk.index) else {
            return Gathered::StillReceiving;
        };
        if self.held.len() + 1 < N {
            return Gathered::StillReceiving;
        }
        let (before, after) = self.held.split_at(at);
        let mut all = [Chunk { index: 0, data: [0; 32] }; N];
        for (to, from) in all.iter_mut().zip(before.iter().chain([chunk]).chain(after)) {
            *to = *from;
        }
        Gathered::Done(rebuild(&all))
    }

    /// Keeps a chunk; one with an index that is held already takes the other's place (S§8.4).
    pub(super) fn hold(&mut self, chunk: Chunk) {
        match self.position(chunk.index) {
            Ok(at) => {
                if let Some(held) = self.held.get_mut(at) {
                    *held = chunk;
                }
            }
            Err(at) if self.held.len() + 1 < N => self.held.insert(at, chunk),
            Err(_) => {}
        }
    }

    fn position(&self, index: u16) -> Result<usize, usize> {
        match self.held.last() {
            Some(last) if last.index >= index => {
                self.held.binary_search_by_key(&index, |held| held.index)
            }
            _ => Err(self.held.len()),
        }
    }
}

/// The payload whose polynomials go through N chunks with ascending indices.
fn rebuild<const N: usize>(chunks: &[Chunk; N]) -> Whole<N> {
    let mut whole = Box::new([[0; 32]; N]);
    let mut missing = [true; N];
    for chunk in chunks {
        let at = usize::from(chunk.index);
        if let (Some(row), Some(missing)) = (whole.get_mut(at), missing.get_mut(at)) {
            (*row, *missing) = (chunk.data, false);
        }
    }
    if missing.iter().all(|missing| !missing) {
        return whole;
    }
    let mut xs = [[0; 8]; OCTETS];
    for (x, chunk) in xs.as_flattened_mut().iter_mut().zip(chunks) {
        *x = chunk.index;
    }
    let weights = weights(&xs, N);
    let sums: Vec<Sums> = chunks.map(|chunk| chunk.data).chunks(4).map(Sums::new).collect();
    let absent = whole.iter_mut().zip(missing).enumerate().filter(|(_, (_, missing))| *missing);
    for (position, (row, _)) in absent {
        let coefficients = lagrange(&xs, &weights, position as u16, N);
        let mut dot = Dot::default();
        fours(&coefficients).zip(&sums).for_each(|(four, sums)| dot.add(four, sums));
        *row = dot.total();
    }
    whole
}

fn fours(points: &Points) -> impl Iterator<Item = [u16; 4]> {
    points.as_flattened().as_chunks().0.iter().copied()
}

/// 0, 1, 2, …: where a payload's own chunks lie.
#[allow(clippy::indexing_slicing, reason = "as many points as there is place for")]
const fn first_points<const N: usize>() -> Points {
    let mut points = [[0; 8]; OCTETS];
    let flat = points.as_flattened_mut();
    let mut j = 0;
    while j < N {
        flat[j] = j as u16;
        j += 1;
    }
    points
}

#[allow(clippy::indexing_slicing, reason = "evaluated when compiled, for 3, 5, 30 and 36 points")]
const fn systematic_weights(n: usize) -> Points {
    let mut weights = [[0; 8]; OCTETS];
    let flat = weights.as_flattened_mut();
    let mut j = 0;
    while j < n {
        let (mut product, mut m) = (1, 0);
        while m < n {
            if m != j {
                product = gf::mul(product, (j ^ m) as u16);
            }
            m += 1;
        }
        flat[j] = gf::invert(product);
        j += 1;
    }
    weights
}

/// 1/∏(x_j − x_m) over m ≠ j, for the first n points.
fn weights(xs: &Points, n: usize) -> Points {
    let mut products = [[1; 8]; OCTETS];
    for x in xs.as_flattened().iter().take(n) {
        for (products, xs) in products.iter_mut().zip(xs) {
            // The point itself, difference 0, is left out.
            *products =
                gf::mul_each(products, &xs.map(|other| (other ^ x).max(u16::from(other == *x))));
        }
    }
    products.map(|products| gf::invert_each(&products))
}

/// The Lagrange coefficients at `at`: weight_j · ∏(at − x_m) over m ≠ j, for the first n points.
///
/// The products of all others are made without a division: in each of the eight columns by running
/// products from both ends, then over the columns by doubling.
fn lagrange(xs: &Points, weights: &Points, at: u16, n: usize) -> Points {
    let used = n.div_ceil(8);
    let mut differences = *xs;
    for (position, x) in differences.as_flattened_mut().iter_mut().enumerate() {
        *x = if position < n { *x ^ at } else { 1 };
    }
    let mut others = [[1; 8]; OCTETS];
    let [mut column, rest @ ..] = differences;
    for (others, difference) in others.iter_mut().skip(1).zip(&rest).take(used - 1) {
        *others = column;
        column = gf::mul_each(&column, difference);
    }
    let mut below = product_of_other_columns(&column, n);
    let [first, later @ ..] = &mut others;
    for (others, difference) in later.iter_mut().zip(&rest).take(used - 1).rev() {
        *others = gf::mul_each(others, &below);
        below = gf::mul_each(&below, difference);
    }
    *first = below;
    for (others, weights) in others.iter_mut().zip(weights).take(used) {
        *others = gf::mul_each(others, weights);
    }
    others
}

/// Columns behind the first n are ones.
fn product_of_other_columns(column: &Octet, n: usize) -> Octet {
    let swap1 = |[a, b, c, d, e, f, g, h]: Octet| [b, a, d, c, f, e, h, g];
    let swap2 = |[a, b, c, d, e, f, g, h]: Octet| [c, d, a, b, g, h, e, f];
    let swap4 = |[a, b, c, d, e, f, g, h]: Octet| [e, f, g, h, a, b, c, d];
    let one = swap1(*column);
    let pairs = gf::mul_each(column, &one);
    let three = gf::mul_each(&one, &swap2(pairs));
    if n <= 4 {
        return three;
    }
    let fours = gf::mul_each(&pairs, &swap2(pairs));
    gf::mul_each(&three, &swap4(fours))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload<const N: usize>(seed: u8) -> Whole<N> {
        let mut whole = Box::new([[0; 32]; N]);
        for (n, byte) in whole.as_flattened_mut().iter_mut().enumerate() {
            *byte = (n as u8).wrapping_mul(31).wrapping_add(seed).rotate_left(n as u32 % 7);
        }
        whole
    }

    fn any_n_chunks_rebuild<const N: usize>(seed: u8, mut indices: Vec<u16>) {
        indices.sort_unstable();
        indices.dedup();
        let whole = payload::<N>(seed);
        let mut decoder = Decoder::<N>::new();
        for (n, index) in indices.iter().rev().take(N).enumerate() {
            let chunk = Encoder::resumed(whole.clone(), u32::from(*index)).chunk();
            match decoder.gather(&chunk) {
                Gathered::StillReceiving => assert!(n + 1 < N),
                Gathered::Done(rebuilt) => {
                    assert_eq!(n + 1, N);
                    assert_eq!(rebuilt, whole);
                    return;
                }
            }
            decoder.hold(chunk);
        }
        assert!(indices.len() < N);
    }

    proptest! {
        #[test]
        fn any_chunks_rebuild_the_payload(seed: u8, far in prop::collection::vec(any::<u16>(), 50), near in prop::collection::vec(0u16..40, 0..40)) {
            let mixed: Vec<u16> = far.iter().copied().chain(near).collect();
            any_n_chunks_rebuild::<3>(seed, mixed.clone());
            any_n_chunks_rebuild::<5>(seed, mixed.clone());
            any_n_chunks_rebuild::<30>(seed, mixed.clone());
            any_n_chunks_rebuild::<36>(seed, mixed);
        }
    }

    #[test]
    fn index_on_the_wire_wraps_after_65535() {
        let mut encoder = Encoder::resumed(payload::<3>(1), 65_535);
        assert_eq!(encoder.chunk().index, 65_535);
        encoder.advance();
        assert_eq!(encoder.chunk(), Encoder::new(payload::<3>(1)).chunk());
    }

    #[test]
    fn a_decoder_never_holds_n_chunks() {
        let mut decoder = Decoder::<3>::new();
        for index in 0..9 {
            decoder.hold(Chunk { index, data: [0; 32] });
        }
        assert_eq!(decoder.held().len(), 2);
    }
}
