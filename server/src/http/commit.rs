//! What changes something is carried out whether or not the caller waits for it.

use crate::service::ServiceError;
use crate::storage::StoreError;

/// A caller that hangs up ends the request, but not what comes after the commit.
pub(super) async fn to_the_end<T: Send + 'static>(
    changing: impl Future<Output = Result<T, ServiceError>> + Send + 'static,
) -> Result<T, ServiceError> {
    let changed = tokio::spawn(changing).await;
    changed.unwrap_or(Err(ServiceError::Store(StoreError::Stopping)))
}
