//! Texts as token ids, and back.

use axum::Json;
use axum::extract::State;
use jetmoe_rt::{ChatOptions, Error};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ErrorResponses;
use super::encoded::EncodedJson;
use super::openai::{Message, check_rendered, to_chat};
use crate::blocking::blocking;
use crate::error::{ApiError, ApiResult};
use crate::generation::{encode_chat, encode_text};
use crate::json::JsonBody;
use crate::state::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(tokenize)).routes(routes!(detokenize))
}

/// A text or a conversation to encode, as a generation would read it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TokenizeRequest {
    /// Name of the model. May be left out if the server has one model.
    model: Option<String>,
    /// A text. Control tokens in it are text.
    prompt: Option<String>,
    /// A conversation, in place of a text.
    messages: Option<Vec<Message>>,
    /// Whether the tokenizer adds what begins a text. True by default; a conversation has it by its template.
    add_special_tokens: Option<bool>,
    /// Whether a conversation ends where the answer begins. True by default.
    add_generation_prompt: Option<bool>,
    /// Whether the texts of the tokens are returned too. False by default.
    return_token_strs: Option<bool>,
}

/// Token ids.
#[derive(Debug, Serialize, ToSchema)]
struct TokenizeResponse {
    /// How many they are.
    count: usize,
    /// Positions of the model.
    max_model_len: usize,
    /// The ids.
    tokens: Vec<u32>,
    /// Their texts, if they are requested.
    token_strs: Option<Vec<String>>,
}

/// Encodes a text or a conversation.
#[utoipa::path(
    post, path = "/tokenize", tag = "tokens", request_body = TokenizeRequest,
    responses((status = 200, description = "The token ids", body = TokenizeResponse), ErrorResponses)
)]
async fn tokenize(
    State(state): State<AppState>,
    JsonBody(request): JsonBody<TokenizeRequest>,
) -> ApiResult<EncodedJson> {
    let lease = state.registry().get(request.model.as_deref()).await?;
    let model = lease.model();
    let tokens = match (request.prompt, &request.messages) {
        (Some(text), None) => {
            if request.add_generation_prompt.is_some() {
                return Err(ApiError::invalid(
                    "add_generation_prompt",
                    "add_generation_prompt is for messages",
                ));
            }
            let special = request.add_special_tokens.unwrap_or(true);
            encode_text(model, vec![text], special, "prompt").await?.pop().unwrap_or_default()
        }
        (None, Some(messages)) => {
            if request.add_special_tokens.is_some() {
                return Err(ApiError::invalid("add_special_tokens", "add_special_tokens is for prompt"));
            }
            let chat = to_chat(messages, model.tokenizer())?;
            let options = ChatOptions::default();
            let options = options.with_add_generation_prompt(request.add_generation_prompt.unwrap_or(true));
            let encoded = encode_chat(lease.engine()?.generator(), chat, options).await?;
            check_rendered(messages, encoded.text.as_deref().unwrap_or_default())?;
            encoded.token_ids
        }
        (None, None) => return Err(ApiError::invalid("prompt", "prompt is missing, or messages")),
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid("messages", "there are prompt and messages, expected one"));
        }
    };
    let texts = |tokens: &[u32]| tokens.iter().map(|id| lease.token_texts().text(*id)).collect();
    EncodedJson::new(&TokenizeResponse {
        count: tokens.len(),
        max_model_len: lease.positions(),
        token_strs: (request.return_token_strs == Some(true)).then(|| texts(&tokens)),
        tokens,
    })
}

/// Token ids to decode.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DetokenizeRequest {
    /// Name of the model. May be left out if the server has one model.
    model: Option<String>,
    /// The ids.
    tokens: Vec<u32>,
}

/// A text.
#[derive(Debug, Serialize, ToSchema)]
struct DetokenizeResponse {
    /// The text, without special tokens.
    prompt: String,
}

/// Decodes token ids.
#[utoipa::path(
    post, path = "/detokenize", tag = "tokens", request_body = DetokenizeRequest,
    responses((status = 200, description = "The text", body = DetokenizeResponse), ErrorResponses)
)]
async fn detokenize(
    State(state): State<AppState>,
    JsonBody(request): JsonBody<DetokenizeRequest>,
) -> ApiResult<Json<DetokenizeResponse>> {
    let lease = state.registry().get(request.model.as_deref()).await?;
    let vocab_size = lease.model().config().vocab_size;
    if let Some(index) = request.tokens.iter().position(|id| *id as usize >= vocab_size) {
        let message =
            format!("tokens[{index}] is {}, expected ids below {vocab_size}", request.tokens[index]);
        return Err(ApiError::invalid("tokens", message));
    }
    let model = lease.model().clone();
    let decode = move || Ok(model.tokenizer().ok_or(Error::NoTokenizer)?.decode(&request.tokens)?);
    let text: jetmoe_rt::Result<String> = blocking("tokens could not be decoded", decode).await?;
    Ok(Json(DetokenizeResponse { prompt: text? }))
}
