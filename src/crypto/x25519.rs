//! The one place where X25519 is computed (W§2.3): by portable code, or with the feature `asm` by
//! formally verified assembly where the processor has what that needs. Both give the same bytes.

use super::secret::Secret;

/// The shared secret: all zero when the public key has low order. The top bit of the public key and
/// the bits of the private key that clamping sets are ignored.
pub(super) fn agree(private: &[u8; 32], public: &[u8; 32]) -> Secret<32> {
    assembly::agree(private, public).unwrap_or_else(|| portable::agree(private, public))
}

/// The public key of a private key.
pub(super) fn public_key(private: &[u8; 32]) -> [u8; 32] {
    assembly::public_key(private).unwrap_or_else(|| portable::public_key(private))
}

/// Whether this is the canonical encoding of a point on the curve, in the subgroup of prime order.
pub(super) fn is_canonical(u: &[u8; 32]) -> bool {
    assembly::is_canonical(u).unwrap_or_else(|| portable::is_canonical(u))
}

mod portable {
    use super::Secret;
    use curve25519_dalek::montgomery::MontgomeryPoint;
    use x25519_dalek::StaticSecret;

    pub(super) fn agree(private: &[u8; 32], public: &[u8; 32]) -> Secret<32> {
        Secret::new(StaticSecret::from(*private).diffie_hellman(&(*public).into()).to_bytes())
    }

    pub(super) fn public_key(private: &[u8; 32]) -> [u8; 32] {
        MontgomeryPoint::mul_base_clamped(*private).0
    }

    pub(super) fn is_canonical(u: &[u8; 32]) -> bool {
        // Written back, the coordinate is reduced and its top bit clear: only the canonical form is equal.
        match MontgomeryPoint(*u).to_edwards(0) {
            Some(point) => point.is_torsion_free() && point.to_montgomery().0 == *u,
            None => false,
        }
    }
}

#[cfg(all(feature = "asm", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod assembly {
    use super::Secret;
    use graviola::key_agreement::x25519::{PublicKey, StaticPrivateKey};
    use graviola::util::is_cpu_supported;

    /// 5L - 1, where L is the order of the subgroup. It is as clamping leaves it: a multiple of 8
    /// from 2^254 on.
    const MINUS_ONE: [u8; 32] = [
        0xA0, 0x23, 0xCD, 0xD0, 0x83, 0xEF, 0x5B, 0xB8, 0x2F, 0x10, 0xD6, 0x2E, 0x59, 0xE1, 0x5A,
        0x68, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x50,
    ];

    // The crate panics where it cannot run, so it is asked first, each time: the answer is a few
    // loads of what the standard library found out once.

    pub(super) fn agree(private: &[u8; 32], public: &[u8; 32]) -> Option<Secret<32>> {
        is_cpu_supported().then(|| {
            let private = StaticPrivateKey::from_array(private);
            match private.diffie_hellman(&PublicKey::from_array(public)) {
                Ok(shared) => Secret::new(shared.0),
                // Its only error: the result is all zero.
                Err(_) => Secret::zeroed(),
            }
        })
    }

    pub(super) fn public_key(private: &[u8; 32]) -> Option<[u8; 32]> {
        is_cpu_supported().then(|| StaticPrivateKey::from_array(private).public_key().as_bytes())
    }

    /// In the subgroup, and nowhere else, 5L - 1 times a point is its negative, which has the same
    /// coordinate. A part of order 2, 4 or 8 is lost, because 8 divides 5L - 1. On the twist the point
    /// would have an order that divides 5L or 5L - 2; none does (its order, 4 times a prime, has no
    /// factor in common with them). What comes out is encoded canonically, so what goes in was.
    pub(super) fn is_canonical(u: &[u8; 32]) -> Option<bool> {
        agree(&MINUS_ONE, u).map(|same| same.as_bytes() == u && *u != [0; 32])
    }
}

/// No assembly for this target, or none was asked for.
#[cfg(not(all(feature = "asm", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod assembly {
    use super::Secret;

    pub(super) fn agree(_: &[u8; 32], _: &[u8; 32]) -> Option<Secret<32>> {
        None
    }

    pub(super) fn public_key(_: &[u8; 32]) -> Option<[u8; 32]> {
        None
    }

    pub(super) fn is_canonical(_: &[u8; 32]) -> Option<bool> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use curve25519_dalek::{EdwardsPoint, constants::EIGHT_TORSION};
    use proptest::prelude::*;
    use subtle::ConstantTimeEq;

    fn bytes(hex: &str) -> [u8; 32] {
        hex::decode(hex).unwrap().try_into().unwrap()
    }

    /// RFC 7748, section 5.2: a thousand agreements in a row, each with the result of the last.
    #[test]
    fn published_vector() {
        let (mut k, mut u) = ([0; 32], [0; 32]);
        (k[0], u[0]) = (9, 9);
        for _ in 0..1_000 {
            (k, u) = (*agree(&k, &u).as_bytes(), k);
        }
        let expected = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51";
        assert_eq!(k, bytes(expected));
    }

    /// Points of low order, coordinates that are not reduced, the twist, the top bit.
    fn edge_coordinates() -> Vec<[u8; 32]> {
        // The field's prime is 2^255 - 19; what lies above it up to 2^255 - 1 is not reduced.
        let mut all = Vec::new();
        for low in 0..=u8::MAX {
            let mut small = [0; 32];
            small[0] = low;
            let mut large = [0xFF; 32];
            (large[0], large[31]) = (low, 0x7F);
            all.extend([small, large]);
        }
        // Order 8, on the curve and on the twist.
        all.push(bytes("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"));
        all.push(bytes("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"));
        let with_top_bit = all.clone().into_iter().map(|mut u| {
            u[31] |= 0x80;
            u
        });
        all.extend(with_top_bit.collect::<Vec<_>>());
        all
    }

    #[test]
    fn both_backends_agree_at_the_edges() {
        let mut low_order = 0;
        for u in edge_coordinates() {
            for k in [[0; 32], [1; 32], [0x55; 32], [0xFF; 32]] {
                let expected = portable::agree(&k, &u);
                low_order += usize::from(expected.as_bytes() == &[0; 32]);
                if let Some(found) = assembly::agree(&k, &u) {
                    assert_eq!(found.as_bytes(), expected.as_bytes(), "{k:02x?} {u:02x?}");
                }
            }
            if let Some(found) = assembly::public_key(&u) {
                assert_eq!(found, portable::public_key(&u), "{u:02x?}");
            }
            if let Some(found) = assembly::is_canonical(&u) {
                assert_eq!(found, portable::is_canonical(&u), "{u:02x?}");
            }
        }
        // 0, 1, p - 1, p, p + 1 and the two of order 8, each with and without the top bit.
        assert_eq!(low_order, 7 * 2 * 4);
    }

    proptest! {
        #[test]
        fn both_backends_agree_anywhere(k: [u8; 32], u: [u8; 32]) {
            if let Some(found) = assembly::agree(&k, &u) {
                prop_assert!(bool::from(found.ct_eq(&portable::agree(&k, &u))));
            }
            if let Some(found) = assembly::public_key(&k) {
                prop_assert_eq!(found, portable::public_key(&k));
            }
            if let Some(found) = assembly::is_canonical(&u) {
                prop_assert_eq!(found, portable::is_canonical(&u));
            }
        }

        /// A point of the subgroup is canonical, but not with a part of low order, nor with the
        /// top bit set.
        #[test]
        fn only_the_subgroup_is_canonical(k: [u8; 32]) {
            let point = EdwardsPoint::mul_base_clamped(k);
            for (order, part) in EIGHT_TORSION.iter().enumerate() {
                let mut u = (point + part).to_montgomery().0;
                for found in [Some(portable::is_canonical(&u)), assembly::is_canonical(&u)] {
                    prop_assert_eq!(found.unwrap_or(order == 0), order == 0);
                }
                u[31] |= 0x80;
                prop_assert!(!is_canonical(&u));
            }
        }
    }

    /// With the feature on, this processor or a lesser one: the same test in a process in which the
    /// assembly believes that an instruction is missing. Debug builds of its crate ask the environment.
    #[cfg(all(feature = "asm", target_arch = "x86_64", debug_assertions))]
    #[test]
    fn a_processor_without_the_instructions_falls_back() {
        const DENIED: &str = "GRAVIOLA_CPU_DISABLE_avx2";
        if std::env::var_os(DENIED).is_some() {
            assert!(assembly::public_key(&[1; 32]).is_none());
            return published_vector();
        }
        let name = "crypto::x25519::tests::a_processor_without_the_instructions_falls_back";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--test-threads=1"])
            .env(DENIED, "1")
            .output()
            .unwrap();
        let said = std::string::String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(child.status.success() && said.contains("1 passed"), "{said}");
    }
}
