//! `POST /v1/completions`.

mod request;
mod response;

pub(super) use self::response::finite;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jetmoe_rt::{Error, GenerationOptions, TextStream, Tokenizer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::request::{CompletionRequest, DEFAULT_MAX_TOKENS, Prompts};
use self::response::{Completion, CompletionChoice, Logprobs};
use super::super::ErrorResponses;
use super::super::encoded::EncodedJson;
use super::choice::{experts, finish};
use super::stream::{self, Chunks};
use super::usage::Usage;
use super::{Head, check_sequences, choices_of};
use crate::engine::Job;
use crate::error::{ApiError, ApiResult};
use crate::generation::{DefaultLength, Delta, Generation, constraint, encode_text};
use crate::json::JsonBody;
use crate::registry::Lease;
use crate::state::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create))
}

/// Continues texts.
#[utoipa::path(
    post, path = "/v1/completions", operation_id = "create_completion", tag = "generation", request_body = CompletionRequest,
    responses(
        (status = 200, description = "The continuations; with `stream` server-sent events, each a chunk in the same form", content(
            (Completion = "application/json"), (Completion = "text/event-stream")
        )),
        ErrorResponses,
    )
)]
async fn create(
    State(state): State<AppState>,
    JsonBody(request): JsonBody<CompletionRequest>,
) -> ApiResult<Response> {
    request.check()?;
    let lease = state.registry().get(request.model.as_deref()).await?;
    let prompts = prompts(&lease, &request).await?;
    check_sequences(&state, prompts.len(), request.best_of())?;
    let jobs = jobs(&state, &lease, &request, &prompts).await?;
    let choices = prompts.iter().flat_map(|prompt| (0..request.best_of()).map(move |_| prompt));
    let choices = choices.map(|prompt| Choice::new(&lease, &request, prompt)).collect::<ApiResult<_>>()?;
    let answer =
        Answer { head: Head::new("cmpl", &lease), choices, with_usage: request.common().includes_usage() };
    let generation = Generation::start(&state, lease, jobs, request.best_of())
        .map_err(|error| error.or_param("prompt"))?;
    if request.common().streams() {
        return Ok(stream::respond(generation, answer, request.common()));
    }
    complete(generation, answer, &request).await
}

/// Token ids of each prompt.
async fn prompts(lease: &Lease, request: &CompletionRequest) -> ApiResult<Vec<Prompt>> {
    let model = lease.engine()?.generator().model();
    let texts = match &request.prompt {
        Prompts::Text(text) => vec![text.clone()],
        Prompts::Texts(texts) => texts.clone(),
        Prompts::Tokens(ids) => return Ok(vec![Prompt { ids: ids.clone(), text: None }]),
        Prompts::TokenLists(lists) => {
            return Ok(lists.iter().map(|ids| Prompt { ids: ids.clone(), text: None }).collect());
        }
    };
    if let Some(index) = texts.iter().position(String::is_empty) {
        return Err(ApiError::from(Error::EmptyPrompt { index }).with_param("prompt"));
    }
    let special = request.add_special_tokens.unwrap_or(true);
    let ids = encode_text(model, texts.clone(), special, "prompt").await?;
    Ok(ids.into_iter().zip(texts).map(|(ids, text)| Prompt { ids, text: Some(text) }).collect())
}

struct Prompt {
    ids: Vec<u32>,
    /// `None` if the request has its token ids.
    text: Option<String>,
}

async fn jobs(
    state: &AppState,
    lease: &Lease,
    request: &CompletionRequest,
    prompts: &[Prompt],
) -> ApiResult<Vec<Job>> {
    let engine = lease.engine()?;
    let common = request.common();
    let constraint = constraint(engine, common.response_format, common.structured_outputs).await?;
    let mut fields = request.sampling_fields();
    // without generation the length is not used
    fields.max_tokens = request.max_tokens.map(|tokens| tokens.max(1));
    fields.log_probabilities = request.logprobs.or_else(|| request.selects().then_some(0));
    let options: GenerationOptions =
        fields.options(engine, &state.config().limits, DefaultLength::Tokens(DEFAULT_MAX_TOKENS))?;
    let scores = request.logprobs.filter(|_| request.echoes());
    let jobs = prompts.iter().flat_map(|prompt| {
        let job = common
            .job(state, prompt.ids.clone(), options.clone())
            .with_generation(request.generates())
            .with_prompt_log_probabilities(scores);
        choices_of(&job, request.best_of(), constraint.as_ref())
    });
    Ok(jobs.collect())
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
    prompt: Vec<u32>,
    /// The text of the prompt, which the first part has; empty unless it is echoed.
    echo: String,
    reports_logprobs: bool,
    reports_experts: bool,
    /// Characters of the text so far.
    characters: usize,
    has_begun: bool,
}

impl Choice {
    fn new(lease: &Lease, request: &CompletionRequest, prompt: &Prompt) -> ApiResult<Self> {
        let echo = match (request.echoes(), &prompt.text, lease.model().tokenizer()) {
            (false, ..) => String::new(),
            (true, Some(text), _) => text.clone(),
            (true, None, Some(tokenizer)) => tokenizer.decode(&prompt.ids)?,
            (true, None, None) => return Err(ApiError::from(Error::NoTokenizer).with_param("echo")),
        };
        Ok(Choice {
            index: 0,
            prompt: prompt.ids.clone(),
            echo,
            reports_logprobs: request.logprobs.is_some(),
            reports_experts: request.common().reports_experts(),
            characters: 0,
            has_begun: false,
        })
    }

    /// What a delta adds; `None` if that is nothing.
    fn add(&mut self, lease: &Lease, delta: Delta) -> ApiResult<Option<CompletionChoice>> {
        let mut part = CompletionChoice { index: self.index, ..CompletionChoice::default() };
        let mut logprobs = self.reports_logprobs.then(Logprobs::default);
        if !self.has_begun {
            self.has_begun = true;
            part.text = std::mem::take(&mut self.echo);
            if let (Some(logprobs), Some(scores)) = (&mut logprobs, &delta.prompt) {
                let offsets = offsets(lease.model().tokenizer(), &self.prompt)?;
                logprobs.push_prompt(lease.token_texts(), &self.prompt, scores, &offsets);
            }
            self.characters = part.text.chars().count();
        }
        if let (Some(logprobs), Some(token)) = (&mut logprobs, &delta.token) {
            let scores = token.log_probabilities.as_ref();
            logprobs.push(lease.token_texts(), token.token_id, scores, self.characters);
        }
        self.characters += delta.text.chars().count();
        part.text.push_str(&delta.text);
        part.experts = experts(self.reports_experts, delta.token.is_some(), &delta.experts);
        if let Some(reason) = delta.finish {
            let (reason, detail) = finish(reason)?;
            (part.finish_reason, part.finish_detail) = (Some(reason), Some(detail));
        }
        let has_logprobs = logprobs.as_ref().is_some_and(|logprobs| !logprobs.tokens.is_empty());
        part.logprobs = logprobs;
        let has_content = !part.text.is_empty() || part.finish_reason.is_some() || part.experts.is_some();
        Ok((has_content || has_logprobs).then_some(part))
    }
}

/// Where each token of a prompt begins in its text, in characters.
fn offsets(tokenizer: Option<&Tokenizer>, ids: &[u32]) -> ApiResult<Vec<usize>> {
    let Some(tokenizer) = tokenizer else { return Ok(vec![0; ids.len()]) };
    let mut stream = TextStream::new(tokenizer, &[], &[])?;
    let mut characters = 0;
    ids.iter()
        .map(|id| {
            let offset = characters;
            characters += stream.push(*id)?.chars().count();
            Ok(offset)
        })
        .collect()
}

impl Answer {
    fn completion(&self, choices: Vec<CompletionChoice>, usage: Option<Option<Usage>>) -> Completion {
        Completion {
            id: self.head.id.clone(),
            object: "text_completion",
            created: self.head.created,
            model: self.head.model.clone(),
            choices,
            usage,
        }
    }
}

impl Chunks for Answer {
    type Chunk = Completion;

    fn begin(&mut self) -> Vec<Completion> {
        for (index, choice) in self.choices.iter_mut().enumerate() {
            choice.index = index;
        }
        Vec::new()
    }

    fn add(&mut self, lease: &Lease, delta: Delta) -> ApiResult<Vec<Completion>> {
        let part = self.choices[delta.sequence].add(lease, delta)?;
        let usage = self.with_usage.then_some(None);
        Ok(part.map(|part| self.completion(vec![part], usage)).into_iter().collect())
    }

    fn usage(&mut self, usage: Usage) -> Completion {
        self.completion(Vec::new(), Some(Some(usage)))
    }
}

/// A choice with all its parts, and what the best ones are found by.
#[derive(Default)]
struct Complete {
    choice: CompletionChoice,
    log_probability: f64,
    tokens: usize,
}

/// The whole answer, when it is complete.
async fn complete(
    mut generation: Generation,
    mut answer: Answer,
    request: &CompletionRequest,
) -> ApiResult<Response> {
    let mut completes: Vec<Complete> = answer.choices.iter().map(|_| Complete::default()).collect();
    while let Some(delta) = generation.next().await? {
        let sequence = delta.sequence;
        let complete = &mut completes[sequence];
        if let Some(scores) = delta.token.as_ref().and_then(|token| token.log_probabilities.as_ref()) {
            complete.log_probability += f64::from(scores.chosen);
            complete.tokens += 1;
        }
        if let Some(part) = answer.choices[sequence].add(generation.lease(), delta)? {
            complete.choice.append(part);
        }
    }
    let (choices, best_of) = (request.common().choices(), request.best_of());
    let mut best = Vec::new();
    for of_prompt in completes.chunks_mut(best_of) {
        if request.selects() {
            // of equal ones the first
            of_prompt.sort_by(|left, right| right.mean().total_cmp(&left.mean()));
        }
        best.extend(of_prompt.iter_mut().take(choices).map(|complete| std::mem::take(&mut complete.choice)));
    }
    for (index, choice) in best.iter_mut().enumerate() {
        choice.index = index;
    }
    let usage = generation.usage().into();
    Ok(EncodedJson::new(&answer.completion(best, Some(Some(usage))))?.into_response())
}

impl Complete {
    fn mean(&self) -> f64 {
        self.log_probability / self.tokens.max(1) as f64
    }
}

impl CompletionChoice {
    fn append(&mut self, part: CompletionChoice) {
        self.text.push_str(&part.text);
        if let Some(logprobs) = part.logprobs {
            self.logprobs.get_or_insert_default().extend(logprobs);
        }
        if let Some(experts) = part.experts {
            self.experts.get_or_insert_default().extend(experts);
        }
        self.finish_reason = part.finish_reason.or(self.finish_reason);
        self.finish_detail = part.finish_detail.or(self.finish_detail.take());
    }
}
