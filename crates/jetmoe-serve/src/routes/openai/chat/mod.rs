//! `POST /v1/chat/completions`.

mod messages;
mod request;
mod response;
mod tools;

pub(crate) use self::messages::{Message, check_rendered, to_chat};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jetmoe_rt::{ChatOptions, Tokenizer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::request::{ChatRequest, unsupported_value};
use self::response::{
    AnswerMessage, ChatChoice, ChatChunk, ChatCompletion, ChatDelta, ChatLogprobs, ChunkChoice,
};
use self::tools::ToolCall;
use super::super::ErrorResponses;
use super::super::encoded::EncodedJson;
use super::choice::{Finish, experts, finish};
use super::stream::{self, Chunks};
use super::usage::Usage;
use super::{Head, check_sequences, choices_of};
use crate::engine::{Constraint, Job};
use crate::error::{ApiError, ApiResult};
use crate::generation::{DefaultLength, Delta, Generation, compile, constraint, encode_chat};
use crate::json::JsonBody;
use crate::registry::Lease;
use crate::state::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create))
}

/// Answers a conversation.
#[utoipa::path(
    post, path = "/v1/chat/completions", operation_id = "create_chat_completion", tag = "generation", request_body = ChatRequest,
    responses(
        (status = 200, description = "The answers; with `stream` server-sent events, each a chunk", content(
            (ChatCompletion = "application/json"), (ChatChunk = "text/event-stream")
        )),
        ErrorResponses,
    )
)]
async fn create(
    State(state): State<AppState>,
    JsonBody(request): JsonBody<ChatRequest>,
) -> ApiResult<Response> {
    request.check()?;
    let common = request.common();
    check_sequences(&state, 1, common.choices())?;
    let lease = state.registry().get(request.model.as_deref()).await?;
    let constraint = constraint_of(&lease, &request).await?;
    let calls_tools = constraint.calls_tools;
    let jobs = jobs(&state, &lease, &request, constraint.constraint).await?;
    let choice = |index| Choice {
        index,
        reports_logprobs: request.log_probabilities().is_some(),
        reports_experts: common.reports_experts(),
        call: calls_tools.then(String::new),
    };
    let answer = Answer {
        head: Head::new("chatcmpl", &lease),
        choices: (0..common.choices()).map(choice).collect(),
        with_usage: common.includes_usage(),
    };
    let generation = Generation::start(&state, lease, jobs, common.choices())
        .map_err(|error| error.or_param("messages"))?;
    if common.streams() {
        return Ok(stream::respond(generation, answer, common));
    }
    complete(generation, answer).await
}

/// What the text of the answers must be like.
struct AnswerConstraint {
    constraint: Option<Constraint>,
    /// Whether the text is a call of a tool.
    calls_tools: bool,
}

async fn constraint_of(lease: &Lease, request: &ChatRequest) -> ApiResult<AnswerConstraint> {
    let engine = lease.engine()?;
    let tokenizer = lease.model().tokenizer();
    let has_tools = request.tools.as_ref().is_some_and(|tools| !tools.is_empty());
    if has_tools && !reads(tokenizer, "tools") {
        return Err(ApiError::unsupported(
            "tools",
            "leave it out: the chat template of the model takes no tools",
        ));
    }
    if request.parallel_tool_calls.is_some() && !has_tools {
        return Err(ApiError::invalid("parallel_tool_calls", "parallel_tool_calls needs tools"));
    }
    let common = request.common();
    let text = constraint(engine, common.response_format, common.structured_outputs).await?;
    let Some(call) = tools::constraint(request.tools.as_deref(), request.tool_choice.as_ref())? else {
        return Ok(AnswerConstraint { constraint: text, calls_tools: false });
    };
    if text.is_some() {
        return Err(ApiError::invalid(
            "tool_choice",
            "both tool_choice and response_format constrain the text, expected one",
        ));
    }
    let constraint = compile(engine, call, "tools").await?;
    Ok(AnswerConstraint { constraint: Some(constraint), calls_tools: true })
}

fn reads(tokenizer: Option<&Tokenizer>, name: &str) -> bool {
    tokenizer.is_some_and(|tokenizer| tokenizer.chat_templates_read(name))
}

async fn jobs(
    state: &AppState,
    lease: &Lease,
    request: &ChatRequest,
    constraint: Option<Constraint>,
) -> ApiResult<Vec<Job>> {
    let engine = lease.engine()?;
    let mut fields = request.sampling_fields();
    fields.max_tokens = request.max_tokens()?;
    fields.log_probabilities = request.log_probabilities();
    let options = fields.options(engine, &state.config().limits, DefaultLength::Rest)?;
    let tokenizer = lease.model().tokenizer();
    let messages = to_chat(&request.messages, tokenizer)?;
    let encoded = encode_chat(engine.generator(), messages, chat_options(request, tokenizer)?).await?;
    check_rendered(&request.messages, encoded.text.as_deref().unwrap_or_default())?;
    let job = request.common().job(state, encoded.token_ids, options);
    Ok(choices_of(&job, request.common().choices(), constraint.as_ref()))
}

/// How the conversation is rendered.
fn chat_options(request: &ChatRequest, tokenizer: Option<&Tokenizer>) -> ApiResult<ChatOptions> {
    let mut options =
        ChatOptions::default().with_add_generation_prompt(request.add_generation_prompt.unwrap_or(true));
    for (name, value) in request.chat_template_kwargs.iter().flatten() {
        if !reads(tokenizer, name) || ["messages", "add_generation_prompt", "tools"].contains(&name.as_str())
        {
            let field = format!("chat_template_kwargs.{name}");
            return Err(ApiError::unsupported(
                &field,
                "leave it out: it is no variable of the model's chat template",
            ));
        }
        options = options.with_variable(name, value.clone());
    }
    let hints = [
        ("reasoning_effort", &request.reasoning_effort, "none"),
        ("verbosity", &request.verbosity, "medium"),
    ];
    for (name, value, neutral) in hints {
        match value {
            Some(value) if reads(tokenizer, name) => options = options.with_variable(name, value.clone()),
            Some(value) if value != neutral => return Err(unsupported_value(name, value, neutral)),
            _ => {}
        }
    }
    if let Some(tools) = request.tools.as_ref().filter(|tools| !tools.is_empty()) {
        let tools =
            serde_json::to_value(tools).map_err(|error| ApiError::invalid("tools", error.to_string()))?;
        options = options.with_variable("tools", tools);
    }
    Ok(options)
}

/// The answer to a request, as it grows.
struct Answer {
    head: Head,
    choices: Vec<Choice>,
    /// Whether chunks have a usage, which is null but for the last one.
    with_usage: bool,
}

/// A choice, as it grows.
struct Choice {
    index: usize,
    reports_logprobs: bool,
    reports_experts: bool,
    /// The text of a call of a tool, which is known when it is complete; `None` for an answer that is a text.
    call: Option<String>,
}

impl Choice {
    /// What a delta adds; `None` if that is nothing.
    fn add(&mut self, lease: &Lease, delta: Delta) -> ApiResult<Option<ChunkChoice>> {
        let mut part = ChunkChoice { index: self.index, ..ChunkChoice::default() };
        if self.reports_logprobs {
            part.logprobs = delta.token.as_ref().map(|token| ChatLogprobs::of(lease.token_texts(), token));
        }
        part.experts = experts(self.reports_experts, delta.token.is_some(), &delta.experts);
        if let Some(reason) = delta.finish {
            let (reason, detail) = finish(reason)?;
            (part.finish_reason, part.finish_detail) = (Some(reason), Some(detail));
        }
        match &mut self.call {
            None => part.delta.content = Some(delta.text).filter(|text| !text.is_empty()),
            Some(call) => {
                call.push_str(&delta.text);
                if part.finish_reason.is_some() {
                    end_call(call, &mut part);
                }
            }
        }
        let has_content = part.delta.content.is_some() || part.delta.tool_calls.is_some();
        let has_more = part.logprobs.is_some() || part.experts.is_some() || part.finish_reason.is_some();
        Ok((has_content || has_more).then_some(part))
    }
}

/// Adds a call of a tool to the last part; its text, if a limit ended it before it was complete.
fn end_call(text: &str, part: &mut ChunkChoice) {
    match ToolCall::parse(text) {
        Some(call) => {
            part.delta.tool_calls = Some(vec![call.with_index(0)]);
            part.finish_reason = Some(Finish::ToolCalls);
        }
        None => part.delta.content = Some(text.to_owned()).filter(|text| !text.is_empty()),
    }
}

impl Answer {
    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<Option<Usage>>) -> ChatChunk {
        ChatChunk {
            id: self.head.id.clone(),
            object: "chat.completion.chunk",
            created: self.head.created,
            model: self.head.model.clone(),
            choices,
            usage,
        }
    }

    fn part(&self, part: ChunkChoice) -> ChatChunk {
        self.chunk(vec![part], self.with_usage.then_some(None))
    }
}

impl Chunks for Answer {
    type Chunk = ChatChunk;

    /// The role of each choice.
    fn begin(&mut self) -> Vec<ChatChunk> {
        let role = |index| {
            let delta =
                ChatDelta { role: Some("assistant"), content: Some(String::new()), ..ChatDelta::default() };
            self.part(ChunkChoice { index, delta, ..ChunkChoice::default() })
        };
        (0..self.choices.len()).map(role).collect()
    }

    /// The part with the end has no text, as in OpenAI's API.
    fn add(&mut self, lease: &Lease, delta: Delta) -> ApiResult<Vec<ChatChunk>> {
        let Some(mut part) = self.choices[delta.sequence].add(lease, delta)? else { return Ok(Vec::new()) };
        let Some(reason) = part.finish_reason.take() else { return Ok(vec![self.part(part)]) };
        let end = ChunkChoice {
            index: part.index,
            finish_reason: Some(reason),
            finish_detail: part.finish_detail.take(),
            ..ChunkChoice::default()
        };
        let has_content = part.delta.content.is_some() || part.delta.tool_calls.is_some();
        let has_more = part.logprobs.is_some() || part.experts.is_some();
        let parts = (has_content || has_more).then_some(part).into_iter().chain([end]);
        Ok(parts.map(|part| self.part(part)).collect())
    }

    fn usage(&mut self, usage: Usage) -> ChatChunk {
        self.chunk(Vec::new(), Some(Some(usage)))
    }
}

/// The whole answer, when it is complete.
async fn complete(mut generation: Generation, mut answer: Answer) -> ApiResult<Response> {
    let empty = |choice: &Choice| ChatChoice {
        index: choice.index,
        message: AnswerMessage {
            role: "assistant",
            content: Some(String::new()),
            ..AnswerMessage::default()
        },
        logprobs: choice.reports_logprobs.then(ChatLogprobs::default),
        finish_reason: None,
        finish_detail: None,
        experts: None,
    };
    let mut choices: Vec<ChatChoice> = answer.choices.iter().map(empty).collect();
    while let Some(delta) = generation.next().await? {
        let sequence = delta.sequence;
        if let Some(part) = answer.choices[sequence].add(generation.lease(), delta)? {
            choices[sequence].append(part);
        }
    }
    let Head { id, created, model } = answer.head;
    let usage = generation.usage().into();
    let completion = ChatCompletion { id, object: "chat.completion", created, model, choices, usage };
    Ok(EncodedJson::new(&completion)?.into_response())
}

impl ChatChoice {
    fn append(&mut self, part: ChunkChoice) {
        if let Some(text) = part.delta.content {
            self.message.content.get_or_insert_default().push_str(&text);
        }
        if let Some(calls) = part.delta.tool_calls {
            self.message.content = None;
            let without_index = calls.into_iter().map(|call| call.with_index(None));
            self.message.tool_calls = Some(without_index.collect());
        }
        if let (Some(logprobs), Some(further)) = (&mut self.logprobs, part.logprobs) {
            logprobs.content.extend(further.content);
        }
        if let Some(experts) = part.experts {
            self.experts.get_or_insert_default().extend(experts);
        }
        self.finish_reason = part.finish_reason.or(self.finish_reason);
        self.finish_detail = part.finish_detail.or(self.finish_detail.take());
    }
}
