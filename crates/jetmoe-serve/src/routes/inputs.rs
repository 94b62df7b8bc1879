//! What routes that compute lists of inputs have in common.

use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, ApiResult};

/// Most inputs of a request, as in OpenAI's API for embeddings.
const MAX_INPUTS: usize = 2048;

/// Refuses no input, and too many.
pub(super) fn check_count(field: &str, count: usize) -> ApiResult<()> {
    match count {
        1..=MAX_INPUTS => Ok(()),
        0 => Err(ApiError::invalid(field, format!("{field} is empty; give at least one text"))),
        _ => {
            let message = format!("{field} has {count} elements, more than {MAX_INPUTS}");
            Err(ApiError::invalid(field, message).with_advice("send them in several requests"))
        }
    }
}

/// Tokens of a request that generates none.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InputUsage {
    /// Tokens of all inputs, special tokens included.
    prompt_tokens: usize,
    /// As many.
    total_tokens: usize,
}

impl InputUsage {
    /// Of the tokens of each input.
    pub(super) fn of(tokens: impl Iterator<Item = usize>) -> Self {
        let tokens = tokens.sum();
        InputUsage { prompt_tokens: tokens, total_tokens: tokens }
    }
}
