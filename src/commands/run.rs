//! `jetmoe run`.

use std::io::{self, IsTerminal, Read};
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use jetmoe_artifact::Task;
use jetmoe_conformance::BackendName;
use jetmoe_console::{finish_on_interrupt, note_settings};
use jetmoe_rt::{
    CancellationToken, ChatMessage, ChatOptions, FinishReason, GenerationConfig, GenerationOptions,
    Generator, Prompt, PromptLookup, Request,
};
use serde::Serialize;
use serde_json::Value;

use super::generation::GenerationArguments;
use super::model::{ModelArguments, Opened};
use super::{ExitStatus, SCHEMA, note, print, print_json};

/// Continue a text.
///
/// The prompt is --prompt or standard input. The generation_config.json of the checkpoint applies; an option overrides one of its
/// values. Without settings generation is greedy; an option for sampling turns sampling on.
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
    /// Name of the chat template, for a model with several [default: tool_use with the variable tools, otherwise default]
    #[arg(long, value_name = "NAME", requires = "chat")]
    template: Option<String>,
    /// Variable of the chat template, such as enable_thinking=false or tools='[…]'. A value that is no JSON is a text. Can be given
    /// several times.
    #[arg(long, value_name = "NAME=JSON", requires = "chat", value_parser = parse_variable)]
    template_variable: Vec<(String, Value)>,
    /// Let the text of special tokens in the prompt, such as </s>, be control tokens; by default it is plain text in a chat.
    #[arg(long, requires = "chat")]
    control_tokens_in_text: bool,
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
    #[command(flatten)]
    generation: GenerationArguments,
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
    /// Most bytes of a prompt, of a chat as the template renders it [default: 64 per position of the model, at least 1048576]
    #[arg(long, value_name = "N", help_heading = STEPS)]
    max_text_bytes: Option<usize>,
}

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
    prompt_token_ids: &'a [u32],
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
        let model = self.model.load(&opened, self.backend)?.with_max_text_bytes(self.max_text_bytes);
        let generator = Generator::new(&model)?;
        note_settings(model.generation_config(), model.config());
        let options = self.options(model.generation_config());
        options.validate().context("the checkpoint's generation_config.json cannot be followed")?;

        let prompt = if self.chat { Prompt::Chat(self.conversation(&prompt)) } else { Prompt::Text(prompt) };
        let prompt = generator.encode_with(prompt, &self.chat_options())?;
        let shown = prompt.text.as_deref().unwrap_or_default();
        // printed before the next piece of text
        let mut before = if self.echo { shown } else { "" };
        let mut printed = Ok(());
        let token = CancellationToken::new();
        let request = Request::new(&prompt).with_options(options).with_cancellation(&token);
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
                prompt: shown,
                prompt_token_ids: &prompt.token_ids,
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
        self.generation.check()?;
        self.options(&GenerationConfig::default()).validate().map_err(super::as_cli_error)
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

    /// The prompt. One line break at the end of standard input, as `echo` adds, is removed.
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
                let typed = prompt.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
                prompt.truncate(typed.unwrap_or(&prompt).len());
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

    fn chat_options(&self) -> ChatOptions {
        let options = ChatOptions::default()
            .with_template(self.template.clone())
            .with_split_special_tokens(!self.control_tokens_in_text);
        self.template_variable
            .iter()
            .fold(options, |options, (name, value)| options.with_variable(name, value.clone()))
    }

    fn prompt_lookup(&self) -> Option<PromptLookup> {
        let draft_tokens = self.speculate.filter(|tokens| *tokens > 0)?;
        let lookup = PromptLookup::default().with_draft_tokens(draft_tokens);
        Some(match self.ngram_tokens {
            Some(tokens) => lookup.with_ngram_tokens(tokens),
            None => lookup,
        })
    }

    /// The checkpoint's settings, overridden by the arguments.
    fn options(&self, config: &GenerationConfig) -> GenerationOptions {
        let mut options = self.generation.options(config);
        options.prefill_chunk = self.prefill_chunk.unwrap_or(options.prefill_chunk);
        options.prompt_lookup = self.prompt_lookup();
        options
    }
}

/// `NAME=JSON`; a value that is no JSON is a text.
fn parse_variable(argument: &str) -> Result<(String, Value), String> {
    match argument.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            Ok((name.to_owned(), value))
        }
        _ => Err("expected NAME=JSON, such as enable_thinking=false".to_owned()),
    }
}
