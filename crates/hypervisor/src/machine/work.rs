//! Work that blocks.

use crate::VmmError;

/// Runs `work` where blocking is allowed. It runs to its end even if the caller goes away.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VmmError> + Send + 'static,
) -> Result<T, VmmError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(VmmError::unusable(format!(
            "a task of the driver failed: {error}"
        ))),
    }
}

/// Blocks in place, for work on borrowed things, or where somebody waits for every millisecond: nothing has to be woken.
/// A runtime of one thread has no place to move its other tasks to and just waits.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::current().runtime_flavor() {
        tokio::runtime::RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}
