//! Tokens of a request, in the form of OpenAI's API.

use serde::Serialize;
use utoipa::ToSchema;

/// Tokens of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Usage {
    /// Tokens of the prompts, special tokens included.
    prompt_tokens: usize,
    /// Generated tokens of all choices, end-of-sequence tokens included.
    completion_tokens: usize,
    /// Both.
    total_tokens: usize,
    prompt_tokens_details: PromptTokensDetails,
}

/// Tokens of prompts by what was done with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
struct PromptTokensDetails {
    /// Tokens that were reused from earlier requests.
    cached_tokens: usize,
}

impl From<crate::generation::Usage> for Usage {
    fn from(usage: crate::generation::Usage) -> Self {
        Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details: PromptTokensDetails { cached_tokens: usage.cached_tokens },
        }
    }
}
