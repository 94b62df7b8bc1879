use std::io::{self, IsTerminal, Read};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::Args;
use jetmoe_conformance::Backend;
use jetmoe_rt::{ChatMessage, FinishReason, GenerationOptions, Model, Prompt, Sampling, TextGenerator};
use serde::Serialize;

use super::model::ModelArguments;
use super::{ExitStatus, Format, note, print, print_json};

/// Continue a text.
///
/// The prompt is --prompt or standard input. Without options for sampling, the checkpoint's generation_config.json
/// decides, and without one the most probable token is taken.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    model: ModelArguments,
    /// Runtime; ONNX Runtime for an artifact (tract where there is none), the reference for a checkpoint.
    #[arg(long, value_name = "ort|tract|reference")]
    backend: Option<Backend>,
    /// The text to continue; standard input by default.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Longest continuation in tokens.
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Sample, with the logits divided by this; 0 takes the most probable token.
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Sample from the K most probable tokens only; 0 for all.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Sample from the fewest tokens that together have this probability.
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Sample from tokens with at least this share of the best one's probability.
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Divide the logits of tokens that occurred before; 1 changes nothing.
    #[arg(long, value_name = "R")]
    repetition_penalty: Option<f32>,
    /// Makes sampling repeatable.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End the continuation where this text begins; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Treat the prompt as a user's turn and answer it by the model's chat template.
    #[arg(long)]
    chat: bool,
    /// A system turn in front of the prompt.
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Print pieces as they are made.
    #[arg(long, conflicts_with = "format")]
    stream: bool,
    /// Print the prompt in front of its continuation.
    #[arg(long)]
    echo: bool,
    /// Print the continuation as plain text, or as JSON with its tokens.
    #[arg(long, value_name = "table|json")]
    format: Option<Format>,
}

#[derive(Serialize)]
struct Output<'a> {
    text: &'a str,
    token_ids: &'a [u32],
    finish_reason: String,
    prompt_tokens: usize,
    runtime: String,
}

impl Run {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        let prompt = self.read_prompt()?;
        let model = self.model.load(self.backend)?;
        let options = self.options(&model);
        let generator = TextGenerator::new(&model)?;
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).context("cannot watch for Ctrl-C")?;

        let conversation;
        let prompt = if self.chat {
            conversation = self.conversation(&prompt);
            Prompt::Chat(&conversation)
        } else {
            Prompt::Text(&prompt)
        };
        if let (true, Prompt::Text(text)) = (self.echo && self.format != Some(Format::Json), &prompt) {
            print(text)?;
        }
        let mut printed = Ok(());
        let generated = generator.stream(prompt, &options, |piece| {
            if self.stream {
                printed = print(piece);
            }
            if printed.is_err() || interrupted.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        printed?;
        match self.format {
            Some(Format::Json) => print_json(&Output {
                text: &generated.text,
                token_ids: &generated.token_ids,
                finish_reason: generated.finish_reason.to_string(),
                prompt_tokens: generated.prompt_tokens,
                runtime: model.runtime(),
            })?,
            _ if self.stream => print("\n")?,
            _ => print(&format!("{}\n", generated.text))?,
        }
        if generated.finish_reason == FinishReason::Cancelled {
            return Ok(ExitStatus::Interrupted);
        }
        if generated.finish_reason == FinishReason::MaxPositions {
            note(&format!("stopped: the model has {} positions", model.config().max_position_embeddings));
        }
        Ok(ExitStatus::Success)
    }

    /// Standard input without the line break that `echo` puts behind it.
    fn read_prompt(&self) -> anyhow::Result<String> {
        if let Some(prompt) = &self.prompt {
            return Ok(prompt.clone());
        }
        if io::stdin().is_terminal() {
            note("Type the prompt and end it with Ctrl-D.");
        }
        let mut prompt = String::new();
        io::stdin().read_to_string(&mut prompt).context("cannot read the prompt from standard input")?;
        let length = prompt.trim_end_matches(['\r', '\n']).len();
        prompt.truncate(length);
        Ok(prompt)
    }

    fn conversation(&self, prompt: &str) -> Vec<ChatMessage> {
        let turn =
            |role: &str, content: &str| ChatMessage { role: role.to_owned(), content: content.to_owned() };
        let system = self.system.as_deref().map(|content| turn("system", content));
        system.into_iter().chain([turn("user", prompt)]).collect()
    }

    /// The checkpoint's defaults, changed by what was given.
    fn options(&self, model: &Model) -> GenerationOptions {
        let mut options = GenerationOptions::for_model(model);
        if let Some(tokens) = self.max_new_tokens {
            options.max_new_tokens = tokens;
        }
        if let Some(penalty) = self.repetition_penalty {
            options.repetition_penalty = penalty;
        }
        options.seed = self.seed.or(options.seed);
        options.stop.clone_from(&self.stop);
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
