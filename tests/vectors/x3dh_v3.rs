//! Conversations begun by X3DH, which has to be allowed by name (W§7).

use super::*;
use tuckseal::AgreementPolicy;

pub(super) fn replay(file: &Value) {
    expect_sections(file, &["cases"]);
    for (number, case) in cases(file, "cases").iter().enumerate() {
        begun_by_libsignal::replay(case, AgreementPolicy::AllowX3dh, &[0, 1], number);
    }
}
