//! Identifiers of responses.

/// An identifier that no other response has, such as `rerank-0f…`: 128 random bits behind a prefix.
pub(crate) fn new(prefix: &str) -> String {
    format!("{prefix}-{:032x}", rand::random::<u128>())
}
