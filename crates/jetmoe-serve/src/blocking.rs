//! Short work that may block, such as encoding, outside of the threads that answer requests.

use crate::error::{ApiError, ApiResult};

/// Runs `work` on a thread for blocking work. `failure` says in the log what a panic in it prevented.
///
/// # Errors
/// Status 500 after a panic.
pub(crate) async fn blocking<T: Send + 'static>(
    failure: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> ApiResult<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "{failure}");
        ApiError::internal()
    })
}
