//! `Debug` of the service messages that hold a secret, which must not come into a log: written by hand, where all else is
//! generated. `tests/wire.rs` has the list of them.

use super::service::push_registration::Target;
use super::service::{
    AttachmentSlot, DeviceLink, DeviceRegistration, PushRegistration, RecipientAccess, Registered,
    Registration, Report, ReportTokens, SignedDevice, SignedRegistration, StreamSubmission,
    WebPush,
};
use core::fmt;

/// Prints the named fields, and that there are others.
macro_rules! print_only {
    ($($message:ident { $($field:ident),* })*) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($field), &self.$field))*
                    .finish_non_exhaustive()
            }
        }
    )*};
}

print_only! {
    AttachmentSlot { expires_ms }
    DeviceLink { expires_in_secs }
    DeviceRegistration { registration_id, keys }
    PushRegistration { target }
    RecipientAccess { account }
    Registered { account, device_id }
    Registration { identity_key, registration_id, username, keys }
    Report { account }
    ReportTokens { expires_ms }
    SignedDevice {}
    SignedRegistration {}
    StreamSubmission { account, submission }
    WebPush {}
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Web(_) => "Web",
            Self::Apns(_) => "Apns",
            Self::Fcm(_) => "Fcm",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::service::{ClientFrame, MultiSubmission, Submissions, client_frame};
    use super::*;
    use alloc::string::String;
    use alloc::{format, vec};
    use bytes::Bytes;
    use prost::Message;

    #[test]
    fn no_secret_of_a_service_message_is_printed() {
        let (secret, text) = (Bytes::from_static(b"secret"), String::from("secret"));
        let registration = Registration { access_key: secret.clone(), ..Registration::default() };
        let device = DeviceRegistration { link_token: secret.clone(), ..Default::default() };
        let signed = SignedRegistration {
            registration: registration.encode_to_vec().into(),
            ..Default::default()
        };
        let signed_device =
            SignedDevice { registration: device.encode_to_vec().into(), ..Default::default() };
        let web = WebPush { endpoint: text.clone(), auth: secret.clone(), ..Default::default() };
        let push = |target| PushRegistration { target: Some(target) };
        let pushes = [
            push(Target::Web(web.clone())),
            push(Target::Apns(text.clone())),
            push(Target::Fcm(text.clone())),
        ];
        let access = RecipientAccess { access_key: secret.clone(), ..Default::default() };
        let multi = MultiSubmission { access: vec![access.clone()], ..Default::default() };
        let submission = StreamSubmission { access_key: secret.clone(), ..Default::default() };
        let frame = ClientFrame {
            body: Some(client_frame::Body::Submissions(Submissions {
                submissions: vec![submission.clone()],
            })),
        };
        let registered = Registered { token: secret.clone(), device_id: 77, ..Default::default() };
        let link = DeviceLink { id: secret.clone(), token: secret.clone(), ..Default::default() };
        let tokens = ReportTokens { tokens: vec![secret.clone()], expires_ms: 1 };
        let report = Report { token: secret, ..Default::default() };
        let slot = AttachmentSlot { upload: text.clone(), download: text, expires_ms: 1 };
        let printed = format!(
            "{registration:?} {device:?} {signed:?} {signed_device:?} {web:?} {pushes:?} {access:?} {multi:?} \
             {submission:?} {frame:?} {registered:?} {link:?} {tokens:?} {report:?} {slot:?}"
        );
        assert!(!printed.contains("secret"), "{printed}");
        assert!(format!("{registered:?}").contains("device_id: 77"));
    }
}
