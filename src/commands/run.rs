use std::io::{self, IsTerminal, Read};
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use jetmoe_artifact::Task;
use jetmoe_conformance::BackendName;
use jetmoe_export::console;
use jetmoe_rt::{
    ChatMessage, FinishReason, GenerationOptions, Model, Prompt, PromptLookup, Sampling, TextGenerator,
};
use serde::Serialize;

use super::model::{ModelArguments, Opened};
use super::{ExitStatus, note, print, print_json};

/// Continue a text.
///
/// The prompt is --prompt or standard input. Without options for sampling, the checkpoint's generation_config.json
/// decides, and without one the most probable token is taken.
#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Examples:\n  echo \"In the beginning\" | jetmoe run --model artifact\n  \
                  jetmoe run --model artifact --chat --stream --prompt \"Who made the heaven?\""
)]
pub(crate) struct Run {
    #[command(flatten)]
    model: ModelArguments,
    /// Runtime; ONNX Runtime for an artifact (tract where there is none), the reference for a checkpoint.
    #[arg(long, value_name = "ort|tract|reference")]
    backend: Option<BackendName>,
    /// The text to continue; standard input by default.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Treat the prompt as a user's turn and answer it by the model's chat template.
    #[arg(long)]
    chat: bool,
    /// A system turn in front of the prompt.
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Longest continuation in tokens; by default as the checkpoint says, else 256.
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// End the continuation where this text begins; may be given several times.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Print the prompt in front of its continuation; with --chat, as the template renders it.
    #[arg(long)]
    echo: bool,
    /// Write what the runtime does when to this file, for ui.perfetto.dev: of ort every operator, of tract every step.
    #[arg(long, value_name = "FILE.json")]
    profile_trace: Option<PathBuf>,
    /// Print pieces as they are made.
    #[arg(long, conflicts_with = "format")]
    stream: bool,
    /// Print the continuation as text, or as JSON with its tokens [default: text]
    #[arg(long)]
    format: Option<Format>,
    /// Sample, with the logits divided by this; 0 takes the most probable token.
    #[arg(long, value_name = "T", help_heading = SAMPLING)]
    temperature: Option<f32>,
    /// Sample from the K most probable tokens only; 0 for all.
    #[arg(long, value_name = "K", help_heading = SAMPLING)]
    top_k: Option<usize>,
    /// Sample from the fewest tokens that together have this probability.
    #[arg(long, value_name = "P", help_heading = SAMPLING)]
    top_p: Option<f32>,
    /// Sample from tokens with at least this share of the best one's probability.
    #[arg(long, value_name = "P", help_heading = SAMPLING)]
    min_p: Option<f32>,
    /// Divide the logits of tokens that occurred before; 1 changes nothing.
    #[arg(long, value_name = "R", help_heading = SAMPLING)]
    repetition_penalty: Option<f32>,
    /// Makes sampling repeatable: the same seed, prompt and runtime give the same text.
    #[arg(long, value_name = "N", help_heading = SAMPLING)]
    seed: Option<u64>,
    /// Guess up to N next tokens from where the latest ones occurred before, and check them in one step; the text stays
    /// the same. It pays where text repeats; 0, the default, guesses nothing.
    #[arg(long, value_name = "N", help_heading = STEPS)]
    speculate: Option<usize>,
    /// How many of the latest tokens must have occurred before, for --speculate; 2 by default.
    #[arg(long, value_name = "N", requires = "speculate", help_heading = STEPS)]
    ngram_tokens: Option<usize>,
    /// Read the prompt in pieces of N tokens, which bounds the memory that a long one takes; 512 by default.
    #[arg(long, value_name = "N", help_heading = STEPS)]
    prefill_chunk: Option<usize>,
}

const SAMPLING: &str = "Sampling";
const STEPS: &str = "Steps";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs; the fields are documented in docs/json.md and stable.
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

/// Version of the JSON form; fields are added without a new version, but none is removed.
const SCHEMA: u32 = 1;

impl Run {
    pub(crate) fn execute(mut self) -> anyhow::Result<ExitStatus> {
        self.check_options()?;
        let opened = self.model.open()?;
        self.model.require_task(&opened, Task::CausalLm)?;
        self.request_trace(&opened)?;
        let prompt = self.read_prompt()?;
        let model = self.model.load(&opened, self.backend)?;
        let generator = TextGenerator::new(&model)?;
        let options = self.options(GenerationOptions::for_model(&model));
        options.validate().context("the checkpoint's generation_config.json cannot be followed")?;

        let conversation = self.conversation(&prompt);
        let shown = self.rendered(&model, &conversation)?.unwrap_or_else(|| prompt.clone());
        let prompt = if self.chat { Prompt::Chat(&conversation) } else { Prompt::Text(&prompt) };
        // what is still to be printed in front of the next piece
        let mut before = if self.echo { shown.as_str() } else { "" };
        let mut printed = Ok(());
        console::finish_on_interrupt();
        let generated = generator.stream(prompt, &options, |piece| {
            if self.stream {
                printed = print(&format!("{}{piece}", std::mem::take(&mut before)));
            }
            if printed.is_err() || console::is_interrupted() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        model.finish_trace()?;
        let generated = generated?;
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
        if generated.finish_reason == FinishReason::MaxPositions {
            note(&format!("stopped: the model has {} positions", model.config().max_position_embeddings));
        }
        Ok(match generated.finish_reason {
            FinishReason::Cancelled => ExitStatus::Interrupted,
            _ => ExitStatus::Success,
        })
    }

    /// Refuses what was typed and makes no sense, before a model is loaded.
    fn check_options(&self) -> anyhow::Result<()> {
        if let Some(temperature) = self.temperature {
            anyhow::ensure!(
                temperature >= 0.0 && temperature.is_finite(),
                "--temperature is {temperature}, expected a finite number above 0, or 0 for the most probable token"
            );
        }
        self.options(GenerationOptions::default()).validate().map_err(super::typed)
    }

    /// Has the model write the trace that was asked for, where something can.
    fn request_trace(&mut self, opened: &Opened) -> anyhow::Result<()> {
        let is_reference = match self.backend {
            Some(backend) => backend == BackendName::REFERENCE,
            None => matches!(opened, Opened::Checkpoint(_)),
        };
        anyhow::ensure!(
            self.profile_trace.is_none() || !is_reference,
            "--profile-trace: the reference writes no trace\n  choose --backend ort or --backend tract"
        );
        self.model.trace = self.profile_trace.take();
        Ok(())
    }

    /// Standard input without the line break that `echo` puts behind it.
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
        let turn =
            |role: &str, content: &str| ChatMessage { role: role.to_owned(), content: content.to_owned() };
        let system = self.system.as_deref().map(|content| turn("system", content));
        system.into_iter().chain([turn("user", prompt)]).collect()
    }

    /// The text that the model is given for a conversation, if this is one and the model has a chat template.
    fn rendered(&self, model: &Model, conversation: &[ChatMessage]) -> anyhow::Result<Option<String>> {
        let template = model.tokenizer().and_then(|tokenizer| tokenizer.chat_template());
        let template = template.filter(|_| self.chat);
        Ok(template.map(|template| template.render(conversation, true)).transpose()?)
    }

    fn prompt_lookup(&self) -> Option<PromptLookup> {
        let draft_tokens = self.speculate.filter(|tokens| *tokens > 0)?;
        let defaults = PromptLookup::default();
        Some(PromptLookup { draft_tokens, ngram_tokens: self.ngram_tokens.unwrap_or(defaults.ngram_tokens) })
    }

    /// Options, changed by what was typed.
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
        let asked = self.temperature.is_some()
            || self.top_k.is_some()
            || self.top_p.is_some()
            || self.min_p.is_some();
        if self.temperature == Some(0.0) {
            options.sampling = Sampling::Greedy;
        } else if asked {
            let (temperature, top_k, top_p, min_p) = match options.sampling {
                Sampling::Greedy => (1.0, None, None, None),
                Sampling::Random { temperature, top_k, top_p, min_p } => (temperature, top_k, top_p, min_p),
            };
            options.sampling = Sampling::Random {
                temperature: self.temperature.unwrap_or(temperature),
                top_k: self.top_k.map_or(top_k, |k| Some(k).filter(|k| *k > 0)),
                top_p: self.top_p.or(top_p),
                min_p: self.min_p.or(min_p),
            };
        }
        options
    }
}
