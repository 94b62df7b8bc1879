//! What choices of completions and chat completions have in common: why they ended, and the experts of their tokens.

use jetmoe_rt::FinishReason;
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::TokenExperts;
use crate::error::{ApiError, ApiResult};

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Finish {
    /// The model ended it, or a stop text did.
    Stop,
    /// A limit ended it: of tokens, of the model's positions, or of time.
    Length,
    /// It is a call of tools.
    ToolCalls,
}

/// The end of a choice for clients, and what it was exactly.
///
/// # Errors
/// Status 500 for a sequence that ended without a result.
pub(super) fn finish(reason: FinishReason) -> ApiResult<(Finish, String)> {
    let finish = match reason {
        FinishReason::Eos | FinishReason::StopString => Finish::Stop,
        FinishReason::Length | FinishReason::ContextFull | FinishReason::Deadline => Finish::Length,
        _ => {
            tracing::error!(%reason, "a sequence ended without a result");
            return Err(ApiError::internal());
        }
    };
    Ok((finish, reason.to_string()))
}

/// The experts of a token, `[layers][2: attention, MLP][k]`, as JSON.
pub(super) type Experts = Vec<[Vec<u32>; 2]>;

/// The experts of a delta, if they are reported and it has a token.
pub(super) fn experts(is_reported: bool, has_token: bool, of_token: &TokenExperts) -> Option<Vec<Experts>> {
    (is_reported && has_token).then(|| vec![of_token.to_vec()])
}
