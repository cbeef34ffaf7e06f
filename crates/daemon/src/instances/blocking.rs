//! File work off the event loop.

use super::OpError;

/// Runs file work off the event loop, to its end.
pub(super) async fn blocking<T, F>(work: F) -> Result<T, OpError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, memory::ImageError> + Send + 'static,
{
    blocking_op(move || work().map_err(OpError::from)).await
}

/// As [`blocking`], for work with errors of this crate.
pub(super) async fn blocking_op<T, F>(work: F) -> Result<T, OpError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, OpError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}
