//! Byte strings that must not outlive their use, and the macro that gives each role a type of its own.

use alloc::vec::Vec;
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes, wiped when dropped. No `Copy`, `==` or content in `Debug`; `Clone` is there
/// because a stored state is copied when it moves to a larger buffer.
#[derive(Clone)]
pub(crate) struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Drop for Secret<N> {
    /// One store of the whole, behind a barrier: byte by byte it would cost as much as a hash.
    fn drop(&mut self) {
        self.0 = [0; N];
        zeroize::optimization_barrier(&self.0);
    }
}

impl<const N: usize> ZeroizeOnDrop for Secret<N> {}

impl<const N: usize> Secret<N> {
    pub(crate) fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// All zero, to be filled in place.
    pub(crate) fn zeroed() -> Self {
        Self([0; N])
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8; N] {
        &self.0
    }

    pub(crate) fn as_mut_bytes(&mut self) -> &mut [u8; N] {
        &mut self.0
    }

    /// Splits into a first part of `A` and a second of `B` bytes.
    pub(crate) fn split<const A: usize, const B: usize>(&self) -> (Secret<A>, Secret<B>) {
        const { assert!(A + B == N) };
        let (mut first, mut second) = (Secret::zeroed(), Secret::zeroed());
        let (a, b) = self.0.split_at(A);
        first.0.copy_from_slice(a);
        second.0.copy_from_slice(b);
        (first, second)
    }
}

impl<const N: usize> ConstantTimeEq for Secret<N> {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl<const N: usize> core::fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Secret<{N}>")
    }
}

/// Secret bytes of any number, such as a record to store: read as a slice, wiped when dropped.
///
/// The buffer is as large as it has to be from the beginning: growing would leave a copy behind.
#[derive(Clone)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Empty, with room for so many bytes.
    pub(crate) fn with_capacity(len: usize) -> Self {
        Self(Vec::with_capacity(len))
    }

    /// What does not fit the room that was asked for is a bug.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        debug_assert!(self.0.len() + bytes.len() <= self.0.capacity());
        self.0.extend_from_slice(bytes);
    }

    /// Takes bytes over, to be wiped from now on.
    pub(crate) fn from_vec(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_mut_bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl core::ops::Deref for SecretBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for SecretBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for SecretBytes {
    /// As slices, at one stroke: `Vec` is wiped byte by byte, which costs more than to encode a record.
    fn drop(&mut self) {
        self.0.spare_capacity_mut().zeroize();
        self.0.as_mut_slice().zeroize();
    }
}

impl ZeroizeOnDrop for SecretBytes {}

impl PartialEq for SecretBytes {
    /// In constant time for the length.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretBytes {}

impl core::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SecretBytes({})", self.0.len())
    }
}

/// A newtype over [`Secret`] for one role, so that two roles cannot be swapped.
macro_rules! secret_role {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub(crate) struct $name($crate::crypto::secret::Secret<$len>);

        #[allow(dead_code, reason = "a role that is only derived or only stored needs one of the two")]
        impl $name {
            pub(crate) fn new(secret: $crate::crypto::secret::Secret<$len>) -> Self {
                Self(secret)
            }

            pub(crate) fn as_bytes(&self) -> &[u8; $len] {
                self.0.as_bytes()
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}
pub(crate) use secret_role;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn debug_shows_no_byte() {
        assert_eq!(format!("{:?}", Secret::new([7u8; 32])), "Secret<32>");
        assert_eq!(format!("{:?}", SecretBytes::from_vec(alloc::vec![7; 3])), "SecretBytes(3)");
    }

    #[test]
    fn split_keeps_order() {
        let (a, b) = Secret::new([1u8, 2, 3]).split::<1, 2>();
        assert_eq!((a.as_bytes(), b.as_bytes()), (&[1], &[2, 3]));
    }
}
