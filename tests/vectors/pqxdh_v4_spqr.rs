//! A conversation begun by PQXDH with the post-quantum ratchet on, five messages unanswered (W§7, 9).
//! The key of the ratchet (`pqr_key`) is compared in src/handshake.rs: it cannot be seen from outside.

use super::*;
use tuckseal::AgreementPolicy;

/// In the order of sending, and in the one that a real responder was given.
const ORDERS: [[usize; 5]; 2] = [[0, 1, 2, 3, 4], [1, 0, 4, 3, 2]];

pub(super) fn replay(file: &Value) {
    expect_sections(file, &["cases"]);
    for (number, case) in cases(file, "cases").iter().enumerate() {
        for order in ORDERS {
            begun_by_libsignal::replay(case, AgreementPolicy::RequireSpqr, &order, number);
        }
    }
}
