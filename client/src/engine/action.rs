//! What goes into the engine, and what comes out.

use bytes::Bytes;
use tuckseal::ServiceId;
use tuckseal::service::{
    Bundles, Devices, Envelope, Ephemeral, KeyCounts, KeysUpload, MultiAccepted, ReportTokens,
    SenderCertificateAnswer, ServerInfo,
};

use super::prekeys::Upload;
use crate::error::PushError;
use crate::event::Event;
use crate::store::SentBy;
use crate::transport::{ServerError, SubmitError, UploadError};

/// Something has happened outside.
#[derive(Debug)]
pub(crate) enum Input {
    /// The stream is open.
    Connected,
    /// The stream has ended.
    Disconnected,
    /// Nobody carries out actions any more; what was on its way gets no answer.
    Stopped,
    Delivered(Vec<Envelope>),
    /// Something that the relay has not stored: it comes once.
    Passed(Ephemeral),
    QueueEmpty,
    Gap {
        dropped: u64,
    },
    ServerInfo(ServerInfo),
    /// Asked for, or a notice.
    KeyCounts(Result<KeyCounts, ServerError>),
    KeysUploaded {
        upload: Upload,
        result: Result<KeyCounts, UploadError>,
    },
    Certificate(Result<SenderCertificateAnswer, ServerError>),
    Bundles {
        account: ServiceId,
        ticket: u64,
        result: Result<Bundles, ServerError>,
    },
    Submitted {
        account: ServiceId,
        ticket: u64,
        result: Result<(), SubmitError>,
    },
    MultiSubmitted {
        ticket: u64,
        result: Result<MultiAccepted, ServerError>,
    },
    PushTold(Result<(), PushError>),
    ReportTokens(Result<ReportTokens, ServerError>),
    /// Those of our account.
    Devices(Result<Devices, ServerError>),
    /// The time that [`super::Engine::next_tick`] named has come.
    Tick,
}

/// Something is to be done.
#[derive(Debug)]
pub(crate) enum Action {
    FetchServerInfo,
    FetchKeyCounts,
    UploadKeys {
        keys: KeysUpload,
        upload: Upload,
    },
    FetchCertificate,
    /// Repeated under the same request id, it takes no second one-time prekey.
    FetchBundles {
        account: ServiceId,
        ticket: u64,
        request_id: [u8; 16],
        authority: Authority,
    },
    /// `body` is an encoded Submission.
    Submit {
        account: ServiceId,
        ticket: u64,
        body: Bytes,
        authority: Authority,
    },
    /// `body` is an encoded MultiSubmission.
    SubmitMulti {
        ticket: u64,
        body: Bytes,
        by: SentBy,
    },
    /// The server is to hear where the device is woken.
    TellPush,
    FetchReportTokens,
    /// Of our account.
    FetchDevices,
    /// These envelopes are dealt with, on disk.
    Acknowledge(Vec<Bytes>),
    /// For the app.
    Tell(Event),
    /// The server shows another trust root than the pinned one: nothing more may be sent to it.
    StopWrongTrustRoot,
}

impl From<Authority> for SentBy {
    fn from(authority: Authority) -> Self {
        match authority {
            Authority::Token => Self::Token,
            Authority::AccessKey(_) => Self::AccessKey,
        }
    }
}

/// By what right a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Authority {
    /// The device token: the server knows who asks.
    Token,
    /// The recipient's access key, on a connection that carries no token.
    AccessKey([u8; 16]),
}
