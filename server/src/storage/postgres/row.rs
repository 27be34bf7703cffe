//! Values of rows as the types of `storage`. A value of the wrong size is damage in the database.

use bytes::Bytes;
use tokio_postgres::Row;

use crate::storage::StoreError;

/// Exactly `N` bytes.
pub(super) fn bytes<const N: usize>(row: &Row, column: usize) -> Result<[u8; N], StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes.try_into().map_err(|_| StoreError::Damaged)
}

pub(super) fn blob(row: &Row, column: usize) -> Result<Bytes, StoreError> {
    Ok(Bytes::copy_from_slice(row.try_get(column)?))
}

/// A number that fits the smaller type.
pub(super) fn small<T: TryFrom<N>, N>(number: N) -> Result<T, StoreError> {
    T::try_from(number).map_err(|_| StoreError::Damaged)
}
