//! Conversations begun by PQXDH, without the post-quantum ratchet (W§7, 9).

use super::*;
use tuckseal::AgreementPolicy;

pub(super) fn replay(file: &Value) {
    expect_sections(file, &["cases"]);
    for (number, case) in cases(file, "cases").iter().enumerate() {
        begun_by_libsignal::replay(case, AgreementPolicy::AllowNoSpqr, &[0, 1], number);
    }
}
