//! S§8.1. GF(2^16) with x^16 + x^12 + x^3 + x + 1: products, and sums of products over chunks.
//! Which products a chunk needs is `erasure.rs`'s concern.
//!
//! Only public bytes come here (chunks travel in clear), so nothing need be constant in time.
//! Eight elements are multiplied side by side by shift and XOR, which compilers turn into vector
//! instructions of the baseline of every target: 12 ns for eight products where one alone takes 14.
//! Sums over rows go through the sixteen sums of every four rows ("four Russians").
//!
//! What was not taken: tables of logarithms, 384 KiB that push everything else out of the cache;
//! carry-less multiplication, since every way to it that is detected at run time needs `unsafe` at
//! the call; sums over rows bit by bit under a mask, 0.83 µs for 36 rows instead of 0.45.

/// Eight field elements, multiplied side by side.
pub(super) type Octet = [u16; 8];

/// Bytes of a chunk: sixteen elements, big-endian.
pub(super) type Row = [u8; 32];

/// The modulus without x^16.
const REDUCTION: u16 = 0x100B;

const fn times_x(a: u16) -> u16 {
    (a << 1) ^ (((a as i16) >> 15) as u16 & REDUCTION)
}

/// One product, for tables made at compile time.
pub(super) const fn mul(a: u16, b: u16) -> u16 {
    let (mut product, mut bit) = (0, 16);
    while bit > 0 {
        bit -= 1;
        product = times_x(product) ^ (a & ((b >> bit) & 1).wrapping_neg());
    }
    product
}

/// a^(2^16 - 2): the inverse, and 0 of 0.
pub(super) const fn invert(a: u16) -> u16 {
    let (mut result, mut square, mut bit) = (1, a, 1);
    while bit < 16 {
        square = mul(square, square);
        result = mul(result, square);
        bit += 1;
    }
    result
}

/// Eight products.
#[inline]
pub(super) fn mul_each(a: &Octet, b: &Octet) -> Octet {
    let (mut product, mut b) = ([0; 8], *b);
    for _ in 0..16 {
        for ((p, a), b) in product.iter_mut().zip(a).zip(&mut b) {
            *p = times_x(*p) ^ (a & ((*b as i16) >> 15) as u16);
            *b <<= 1;
        }
    }
    product
}

/// Eight inverses.
pub(super) fn invert_each(a: &Octet) -> Octet {
    let (mut result, mut square) = ([1; 8], *a);
    for _ in 1..16 {
        square = mul_each(&square, &square);
        result = mul_each(&result, &square);
    }
    result
}

/// Four elements as they lie in a row, each with its bytes in the order of this machine.
fn elements(word: [u8; 8]) -> u64 {
    const LOW: u64 = 0x00FF_00FF_00FF_00FF;
    let word = u64::from_ne_bytes(word);
    if cfg!(target_endian = "big") { word } else { (word & LOW) << 8 | word >> 8 & LOW }
}

/// All sixteen sums of four rows; the bits of the place say which rows are in. The elements have the byte order of this
/// machine: changed here for four rows, not for the sixteen planes of a total.
pub(super) struct Sums([[u64; 4]; 16]);

impl Sums {
    /// Of fewer rows, those that are absent count as zeros.
    pub(super) fn new(rows: &[Row]) -> Self {
        let mut sums = [[0; 4]; 16];
        let absent = [[0; 32]; 4];
        for (bit, row) in rows.iter().chain(&absent).take(4).enumerate() {
            let (words, _) = row.as_chunks::<8>();
            let (without, with) = sums.split_at_mut(1 << bit);
            for (to, from) in with.iter_mut().zip(without) {
                for ((to, from), word) in to.iter_mut().zip(from).zip(words) {
                    *to = *from ^ elements(*word);
                }
            }
        }
        Self(sums)
    }
}

/// A sum of coefficient times row, four rows at a time. Plane b is the sum of the rows whose
/// coefficient has bit b; in the end one Horner chain in x serves all of them.
#[derive(Default)]
pub(super) struct Dot {
    planes: [[u64; 4]; 16],
}

impl Dot {
    #[allow(clippy::indexing_slicing, reason = "a nibble is below 16")]
    pub(super) fn add(&mut self, coefficients: [u16; 4], sums: &Sums) {
        let mut places = transpose(coefficients);
        for plane in &mut self.planes {
            for (p, s) in plane.iter_mut().zip(&sums.0[(places & 15) as usize]) {
                *p ^= s;
            }
            places >>= 4;
        }
    }

    pub(super) fn total(&self) -> Row {
        let mut total = [0u16; 16];
        for plane in self.planes.iter().rev() {
            let bytes = plane.map(u64::to_ne_bytes);
            let (words, _) = bytes.as_flattened().as_chunks::<2>();
            for (t, word) in total.iter_mut().zip(words) {
                *t = times_x(*t) ^ u16::from_ne_bytes(*word);
            }
        }
        let mut row = [0; 32];
        let (words, _) = row.as_chunks_mut::<2>();
        for (word, t) in words.iter_mut().zip(total) {
            *word = t.to_be_bytes();
        }
        row
    }
}

/// Nibble b has bit b of each of the four.
fn transpose(coefficients: [u16; 4]) -> u64 {
    coefficients.iter().rev().fold(0, |places, c| places << 1 | spread(*c))
}

/// Bit b goes to bit 4·b.
fn spread(c: u16) -> u64 {
    let c = u64::from(c);
    let c = (c | c << 24) & 0x0000_00FF_0000_00FF;
    let c = (c | c << 12) & 0x000F_000F_000F_000F;
    let c = (c | c << 6) & 0x0303_0303_0303_0303;
    (c | c << 3) & 0x1111_1111_1111_1111
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn side_by_side_equals_one_by_one(a: Octet, b: Octet) {
            for ((product, a), b) in mul_each(&a, &b).iter().zip(a).zip(b) {
                prop_assert_eq!(*product, mul(a, b));
            }
            for (inverse, a) in invert_each(&a).iter().zip(a) {
                prop_assert_eq!(*inverse, invert(a));
                prop_assert_eq!(mul(*inverse, a), u16::from(a != 0));
            }
        }

        #[test]
        fn multiplication_is_a_field_s(a: u16, b: u16, c: u16) {
            prop_assert_eq!(mul(a, b), mul(b, a));
            prop_assert_eq!(mul(mul(a, b), c), mul(a, mul(b, c)));
            prop_assert_eq!(mul(a, b ^ c), mul(a, b) ^ mul(a, c));
            prop_assert_eq!(mul(a, 1), a);
        }

        #[test]
        fn dot_is_the_sum_of_the_products(c in proptest::collection::vec(any::<u16>(), 0..9), seed: [u8; 32]) {
            let rows: alloc::vec::Vec<Row> = (0..c.len() as u8).map(|n| seed.map(|b| b.rotate_left(3) ^ n)).collect();
            let mut dot = Dot::default();
            for (c, rows) in c.chunks(4).zip(rows.chunks(4)) {
                dot.add(core::array::from_fn(|n| c.get(n).copied().unwrap_or(0xABCD)), &Sums::new(rows));
            }
            let sum = dot.total();
            for word in 0..16 {
                let at = |row: &Row| u16::from_be_bytes([row[2 * word], row[2 * word + 1]]);
                let expected = c.iter().zip(&rows).fold(0, |sum, (c, row)| sum ^ mul(*c, at(row)));
                prop_assert_eq!(at(&sum), expected);
            }
        }
    }
}
