//! Service ids in their three forms (W§4).

use super::*;
use tuckseal::ServiceId;

pub(super) fn replay(file: &Value) {
    expect_sections(file, &["libsignal_version", "service_ids"]);
    for case in cases(file, "service_ids") {
        let input = text(case, "input");
        let id: ServiceId = input.parse().expect(input);
        assert_eq!(id.to_string(), text(case, "str"), "{input}");
        assert_eq!(id.to_fixed().to_vec(), bytes(case, "fixed"), "{input}");
        assert_eq!(id.to_binary(), bytes(case, "bin"), "{input}");
        assert_eq!(ServiceId::from_fixed(&bytes(case, "fixed")), Ok(id), "{input}");
        assert_eq!(ServiceId::from_binary(&bytes(case, "bin")), Ok(id), "{input}");
    }
}
