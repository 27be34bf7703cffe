//! Group messages that libsignal made, in any order (W§12).

use super::*;
use tuckseal::{
    GroupDecryptError, SenderKeyDistributionMessage, SenderKeyMessage, SenderKeyRecord, ServiceId,
};

pub(super) fn replay(file: &Value) {
    expect_sections(file, &["cases"]);
    for case in cases(file, "cases") {
        let messages = cases(case, "messages");
        let forwards: Vec<usize> = (0..messages.len()).collect();
        let backwards = forwards.iter().copied().rev().collect();
        let odd_first = forwards.iter().copied().filter(|at| at % 2 == 1);
        let odd_first = odd_first.chain(forwards.iter().copied().filter(|at| at % 2 == 0)).collect();
        for order in [forwards, backwards, odd_first] {
            read_in_order(case, messages, &order);
        }
    }
}

fn read_in_order(case: &Value, messages: &[Value], order: &[usize]) {
    let key = SenderKeyDistributionMessage::decode(&bytes(case, "distribution_message")).unwrap();
    let id = ServiceId::aci(*key.distribution_id()).to_string();
    assert_eq!((id.as_str(), key.iteration()), (text(case, "distribution_id"), 0));
    assert_eq!(*key.encode(), bytes(case, "distribution_message"));
    let mut record = SenderKeyRecord::new();
    record.process(&key);
    for &at in order {
        let message = SenderKeyMessage::decode(&bytes(&messages[at], "ciphertext")).unwrap();
        assert_eq!(record.decrypt(&message).unwrap(), bytes(&messages[at], "plaintext"), "{at}");
        record = SenderKeyRecord::decode(&record.encode()).unwrap();
        let again = record.decrypt(&message);
        assert_eq!(again, Err(GroupDecryptError::Duplicate { iteration: message.iteration() }));
    }
}
