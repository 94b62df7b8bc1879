//! `jetmoe run`.

use std::io::{self, IsTerminal, Read};
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use jetmoe_artifact::Task;
use jetmoe_conformance::BackendName;
use jetmoe_console::finish_on_interrupt;
use jetmoe_rt::{
    CancellationToken, ChatMessage, FinishReason, GenerationOptions, Generator, Model, Multinomial, Prompt,
    PromptLookup, Request, Sampling,
};
use serde::Serialize;

use super::model::{ModelArguments, Opened};
use super::{ExitStatus, SCHEMA, note, print, print_json};

/// Continue a text.
///
/// The prompt is --prompt or standard input. Without sampling options, the generation_config.json of the checkpoint
/// applies; if there is none, generation is greedy.
#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Examples:\n  echo \"In the beginning\" | jetmoe run --model artifact\n  \
                  jetmoe run --model artifact --chat --stream --prompt \"Who made the heaven?\""
)]
pub(crate) struct Run {
    #[command(flatten)]
    model: ModelArguments,
    /// Backend, one that `jetmoe devices` lists [default: ort for an artifact, or tract without ONNX Runtime; reference for
    /// a checkpoint]
    #[arg(long)]
    backend: Option<BackendName>,
    /// Text to continue [default: standard input]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Treat the prompt as the user's turn and answer it with the model's chat template.
    #[arg(long)]
    chat: bool,
    /// System turn before the prompt.
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Most tokens to generate [default: as the checkpoint says, otherwise 256]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Stop before this text. Can be given several times.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Print the prompt before its continuation; with --chat, as the template renders it.
    #[arg(long)]
    echo: bool,
    /// Write a trace for ui.perfetto.dev: every operator with ort, every step with tract.
    #[arg(long, alias = "profile-trace", value_name = "FILE.json")]
    trace: Option<PathBuf>,
    /// Print text as it is generated.
    #[arg(long, conflicts_with = "format")]
    stream: bool,
    /// Print the continuation as text, or as JSON with its tokens [default: text]
    #[arg(long)]
    format: Option<Format>,
    /// Temperature: divides the logits before sampling. 0 takes the most probable token.
    #[arg(long, value_name = "T", help_heading = SAMPLING)]
    temperature: Option<f32>,
    /// Sample from the K most probable tokens; 0 for all.
    #[arg(long, value_name = "K", help_heading = SAMPLING)]
    top_k: Option<usize>,
    /// Sample from the smallest set of tokens that together have this probability.
    #[arg(long, value_name = "P", help_heading = SAMPLING)]
    top_p: Option<f32>,
    /// Sample from tokens with at least this share of the most probable token's probability.
    #[arg(long, value_name = "P", help_heading = SAMPLING)]
    min_p: Option<f32>,
    /// Penalty for tokens that occurred before; 1 for none.
    #[arg(long, value_name = "R", help_heading = SAMPLING)]
    repetition_penalty: Option<f32>,
    /// Seed of the sampling: the same seed, prompt and backend give the same text.
    #[arg(long, value_name = "N", help_heading = SAMPLING)]
    seed: Option<u64>,
    /// Prompt-lookup speculation: draft up to N tokens from an earlier occurrence of the latest ones and verify them in one
    /// step. The text stays the same; repetitive text is generated faster [default: 0, off]
    #[arg(long, value_name = "N", help_heading = STEPS)]
    speculate: Option<usize>,
    /// Length of the n-gram that --speculate looks up [default: 2]
    #[arg(long, value_name = "N", requires = "speculate", help_heading = STEPS)]
    ngram_tokens: Option<usize>,
    /// Process the prompt in chunks of N tokens, which bounds the memory of a long one [default: 512]
    #[arg(long, value_name = "N", help_heading = STEPS)]
    prefill_chunk: Option<usize>,
}

const SAMPLING: &str = "Sampling";
const STEPS: &str = "Steps";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text, for people.
    Text,
    /// JSON, for programs. The fields are stable and documented in docs/json.md.
    Json,
}

/// The form of `--format json`, documented in docs/json.md.
#[derive(Serialize)]
struct Output<'a> {
    schema_version: u32,
    prompt: &'a str,
    text: &'a str,
    token_ids: &'a [u32],
    finish_reason: String,
    prompt_tokens: usize,
    drafted_tokens: usize,
    accepted_tokens: usize,
    runtime: String,
}

impl Run {
    pub(crate) fn execute(mut self) -> anyhow::Result<ExitStatus> {
        self.check_options()?;
        let opened = self.model.open()?;
        self.model.require_task(&opened, Task::CausalLm)?;
        self.request_trace(&opened)?;
        let prompt = self.read_prompt()?;
        let model = self.model.load(&opened, self.backend)?;
        let generator = Generator::new(&model)?;
        let options = self.options(GenerationOptions::for_model(&model));
        options.validate().context("the checkpoint's generation_config.json cannot be followed")?;

        let conversation = self.conversation(&prompt);
        let shown = self.rendered(&model, &conversation)?.unwrap_or_else(|| prompt.clone());
        let prompt = if self.chat { Prompt::Chat(conversation) } else { Prompt::Text(prompt) };
        // printed before the next piece of text
        let mut before = if self.echo { shown.as_str() } else { "" };
        let mut printed = Ok(());
        let token = CancellationToken::new();
        let request = Request::new(prompt).with_options(options).with_cancellation(&token);
        finish_on_interrupt(move || token.cancel());
        let generated = generator.for_each(request, |event| {
            if self.stream && !event.text.is_empty() {
                printed = print(&format!("{}{}", std::mem::take(&mut before), event.text));
            }
            if printed.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        model.finish_trace()?;
        let generated = generated?.pop().context("the prompt has no continuation")?;
        printed?;
        match self.format {
            Some(Format::Json) => print_json(&Output {
                schema_version: SCHEMA,
                prompt: &shown,
                text: &generated.text,
                token_ids: &generated.token_ids,
                finish_reason: generated.finish_reason.to_string(),
                prompt_tokens: generated.prompt_tokens,
                drafted_tokens: generated.statistics.drafted_tokens,
                accepted_tokens: generated.statistics.accepted_tokens,
                runtime: model.backend(),
            })?,
            _ if self.stream => print(&format!("{before}\n"))?,
            _ => print(&format!("{before}{}\n", generated.text))?,
        }
        if generated.finish_reason == FinishReason::ContextFull {
            note(&format!("stopped: the model has {} positions", model.config().max_position_embeddings));
        }
        Ok(match generated.finish_reason {
            FinishReason::Cancelled => ExitStatus::Interrupted,
            _ => ExitStatus::Success,
        })
    }

    /// Refuses invalid options before a model is loaded.
    fn check_options(&self) -> anyhow::Result<()> {
        if let Some(temperature) = self.temperature {
            anyhow::ensure!(
                temperature >= 0.0 && temperature.is_finite(),
                "--temperature is {temperature}, expected a finite number above 0, or 0 for the most probable token"
            );
        }
        self.options(GenerationOptions::default()).validate().map_err(super::as_cli_error)
    }

    /// Passes --trace on to the model; the reference has no trace.
    fn request_trace(&mut self, opened: &Opened) -> anyhow::Result<()> {
        let is_reference = match self.backend {
            Some(backend) => backend == BackendName::REFERENCE,
            None => matches!(opened, Opened::Checkpoint(_)),
        };
        anyhow::ensure!(
            self.trace.is_none() || !is_reference,
            "--trace: the reference writes no trace\n  choose --backend ort or --backend tract"
        );
        self.model.trace = self.trace.take();
        Ok(())
    }

    /// The prompt. A line break at the end of standard input, as `echo` adds, is removed.
    fn read_prompt(&self) -> anyhow::Result<String> {
        let prompt = match &self.prompt {
            Some(prompt) => prompt.clone(),
            None => {
                if io::stdin().is_terminal() {
                    note("Type the prompt and end it with Ctrl-D.");
                }
                let mut prompt = String::new();
                io::stdin()
                    .read_to_string(&mut prompt)
                    .context("cannot read the prompt from standard input")?;
                let length = prompt.trim_end_matches(['\r', '\n']).len();
                prompt.truncate(length);
                prompt
            }
        };
        anyhow::ensure!(
            !prompt.is_empty(),
            "the prompt is empty\n  give a text with --prompt or on standard input"
        );
        Ok(prompt)
    }

    fn conversation(&self, prompt: &str) -> Vec<ChatMessage> {
        let system = self.system.as_deref().map(ChatMessage::system);
        system.into_iter().chain([ChatMessage::user(prompt)]).collect()
    }

    /// The conversation as the chat template renders it, with --chat.
    fn rendered(&self, model: &Model, conversation: &[ChatMessage]) -> anyhow::Result<Option<String>> {
        let template = model.tokenizer().and_then(|tokenizer| tokenizer.chat_template());
        let template = template.filter(|_| self.chat);
        Ok(template.map(|template| template.render(conversation, true)).transpose()?)
    }

    fn prompt_lookup(&self) -> Option<PromptLookup> {
        let draft_tokens = self.speculate.filter(|tokens| *tokens > 0)?;
        let lookup = PromptLookup::default().with_draft_tokens(draft_tokens);
        Some(match self.ngram_tokens {
            Some(tokens) => lookup.with_ngram_tokens(tokens),
            None => lookup,
        })
    }

    /// Options, overridden by the arguments.
    fn options(&self, mut options: GenerationOptions) -> GenerationOptions {
        if let Some(tokens) = self.max_new_tokens {
            options.max_new_tokens = tokens;
        }
        if let Some(penalty) = self.repetition_penalty {
            options.repetition_penalty = penalty;
        }
        options.seed = self.seed.or(options.seed);
        options.stop.clone_from(&self.stop);
        options.prefill_chunk = self.prefill_chunk.unwrap_or(options.prefill_chunk);
        options.prompt_lookup = self.prompt_lookup();
        let samples = self.temperature.is_some()
            || self.top_k.is_some()
            || self.top_p.is_some()
            || self.min_p.is_some();
        if self.temperature == Some(0.0) {
            options.sampling = Sampling::Greedy;
        } else if samples {
            let mut sampling = match options.sampling {
                Sampling::Multinomial(multinomial) => multinomial,
                _ => Multinomial::default(),
            };
            sampling.temperature = self.temperature.unwrap_or(sampling.temperature);
            sampling.top_k = self.top_k.map_or(sampling.top_k, |k| Some(k).filter(|k| *k > 0));
            sampling.top_p = self.top_p.or(sampling.top_p);
            sampling.min_p = self.min_p.or(sampling.min_p);
            options.sampling = sampling.into();
        }
        options
    }
}
