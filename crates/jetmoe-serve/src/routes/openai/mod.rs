//! Text generation in the form of OpenAI's API: completions and chat completions.

mod chat;
mod choice;
mod completions;
mod stream;
mod usage;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;

use crate::engine::{Constraint, Job};
use crate::error::{ApiError, ApiResult};
use crate::generation::{ResponseFormat, StructuredOutputs};
use crate::registry::Lease;
use crate::state::AppState;
use jetmoe_rt::GenerationOptions;

pub(crate) use self::chat::{Message, check_rendered, to_chat};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().merge(completions::router()).merge(chat::router())
}

/// How an answer comes as server-sent events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    /// Whether a last chunk without choices has the usage. False by default.
    include_usage: Option<bool>,
    /// Whether chunks have a field `obfuscation` with random characters, so that their sizes tell less about the text. False by
    /// default.
    include_obfuscation: Option<bool>,
}

/// The fields that completions and chat completions treat alike.
#[derive(Debug, Clone, Copy)]
struct CommonFields<'a> {
    n: Option<usize>,
    stream: Option<bool>,
    stream_options: Option<&'a StreamOptions>,
    response_format: Option<&'a ResponseFormat>,
    structured_outputs: Option<&'a StructuredOutputs>,
    priority: Option<i32>,
    skip_special_tokens: Option<bool>,
    include_stop_str_in_output: Option<bool>,
    experts: Option<bool>,
}

impl CommonFields<'_> {
    /// Refuses values that are not honoured.
    fn check(&self) -> ApiResult<()> {
        if self.skip_special_tokens == Some(false) {
            return Err(ApiError::unsupported(
                "skip_special_tokens",
                "leave it out: special tokens have no text",
            ));
        }
        if self.include_stop_str_in_output == Some(true) {
            return Err(ApiError::unsupported(
                "include_stop_str_in_output",
                "leave it out, and append the stop text",
            ));
        }
        if self.stream_options.is_some() && !self.streams() {
            return Err(ApiError::invalid(
                "stream_options",
                "stream_options is for answers with stream true",
            ));
        }
        match self.n {
            Some(0) => Err(ApiError::invalid("n", "n is 0, expected at least 1")),
            _ => Ok(()),
        }
    }

    fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    fn choices(&self) -> usize {
        self.n.unwrap_or(1)
    }

    fn reports_experts(&self) -> bool {
        self.experts == Some(true)
    }

    fn includes_usage(&self) -> bool {
        self.stream_options.and_then(|options| options.include_usage) == Some(true)
    }

    fn obfuscates(&self) -> bool {
        self.stream_options.and_then(|options| options.include_obfuscation) == Some(true)
    }

    /// What a job needs beside its prompt and options.
    fn job(&self, state: &AppState, prompt: Vec<u32>, options: GenerationOptions) -> Job {
        Job::new(prompt, options)
            .with_deadline(state.deadline())
            // a lower number is earlier for clients, a higher one for the engine
            .with_priority(self.priority.unwrap_or(0).saturating_neg())
            .with_experts(self.reports_experts())
    }
}

/// Refuses more sequences than a request may have.
fn check_sequences(state: &AppState, prompts: usize, choices: usize) -> ApiResult<()> {
    let (sequences, limit) = (prompts.saturating_mul(choices), state.config().limits.sequences);
    if sequences > limit {
        let message =
            format!("the request has {sequences} sequences, prompts times choices, expected at most {limit}");
        return Err(ApiError::invalid("n", message).with_advice("send several requests"));
    }
    Ok(())
}

/// The jobs of the choices of a prompt: a job each, with a seed of its own.
fn choices_of(job: &Job, choices: usize, constraint: Option<&Constraint>) -> Vec<Job> {
    let choice = |index: usize| {
        let mut job = job.clone().with_constraint(constraint.cloned());
        job.options.seed = job.options.seed.map(|seed| seed.wrapping_add(index as u64));
        job
    };
    (0..choices).map(choice).collect()
}

/// What the answers of a request have in common.
#[derive(Debug, Clone)]
struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn new(prefix: &str, lease: &Lease) -> Self {
        Head { id: super::ids::new(prefix), created: crate::registry::now(), model: lease.name().to_owned() }
    }
}
