//! What a broker has to do, in its own words, to carry messages to mailboxes.

use std::future::Future;

use bytes::Bytes;

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Mailboxes behind a running server. They exist from the start; nobody receives yet.
pub(crate) trait Broker: Send + Sync + Sized + 'static {
    type Sender: Sender;
    type Receiver: Receiver;

    /// Whether it tells a receiver that something came; else there is nothing to measure online.
    const TELLS: bool = true;

    /// Connects, over a connection of its own.
    fn sender(&self) -> impl Future<Output = Outcome<Self::Sender>> + Send;

    /// Connects, over a connection of its own, and receives what comes.
    fn receiver(&self, mailbox: usize) -> impl Future<Output = Outcome<Self::Receiver>> + Send;

    /// How many messages it still holds, in all mailboxes, nobody being connected.
    fn held(&self) -> impl Future<Output = Outcome<usize>> + Send;
}

pub(crate) trait Sender: Send + 'static {
    /// Returns when the broker has accepted it.
    fn send(
        &mut self,
        mailbox: usize,
        content: Vec<u8>,
    ) -> impl Future<Output = Outcome<()>> + Send;
}

pub(crate) trait Receiver: Send + 'static {
    /// Waits for what comes next.
    fn receive(&mut self) -> impl Future<Output = Outcome<Vec<Bytes>>> + Send;

    /// Acknowledges all that it has received, so that it is deleted.
    fn acknowledge(&mut self) -> impl Future<Output = Outcome<()>> + Send;

    /// Disconnects. Whoever takes over a session that was not left may cost it the acknowledgements on their way.
    fn leave(self) -> impl Future<Output = Outcome<()>> + Send
    where
        Self: Sized,
    {
        async { Ok(()) }
    }
}
