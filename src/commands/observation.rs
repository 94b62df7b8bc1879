//! What `jetmoe mask` and `jetmoe routing` have in common: the model, the tokens, and the steps.

use std::io::{self, IsTerminal, Read};
use std::num::ParseIntError;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;
use clap::Args;
use jetmoe_artifact::ObservedValue;
use jetmoe_conformance::BackendName;
use jetmoe_observe::{StepOptions, encode};
use jetmoe_rt::Model;

use super::model::{ModelArguments, Opened};
use super::note;

/// A model, tokens, and the steps that compute them.
#[derive(Debug, Args)]
pub(crate) struct ObservationArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    /// Backend, one that `jetmoe devices` lists, but not the reference, which runs no graph [default: ort, or tract without ONNX
    /// Runtime]
    #[arg(long)]
    backend: Option<BackendName>,
    /// File with one text.
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    file: Option<PathBuf>,
    /// Token ids in place of a text, as in 1,593,453. Can be given several times.
    #[arg(long, value_name = "LIST", conflicts_with_all = ["texts", "file"])]
    ids: Vec<TokenIds>,
    /// Put the first N tokens into the cache by a step of their own.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = STEPS)]
    cached: usize,
    /// Process the tokens in chunks of N [default: all in one step]
    #[arg(long, value_name = "N", help_heading = STEPS)]
    chunk: Option<usize>,
    /// The texts. Several are one batch, padded on the left [default: standard input, as one text]
    texts: Vec<String>,
}

const STEPS: &str = "Steps";

/// A list of token ids.
#[derive(Debug, Clone)]
struct TokenIds(Vec<u32>);

impl FromStr for TokenIds {
    type Err = ParseIntError;

    fn from_str(list: &str) -> Result<Self, ParseIntError> {
        Ok(TokenIds(list.split(',').map(|id| id.trim().parse()).collect::<Result<_, _>>()?))
    }
}

/// What a command is given to read.
pub(crate) enum Input {
    /// Token ids of the sequences of one batch.
    Ids(Vec<Vec<u32>>),
    /// Texts of one batch.
    Texts(Vec<String>),
    /// A text that may be longer than the model's positions.
    LongText(String),
}

/// The tokens of an [`Input`].
pub(crate) enum Tokens {
    /// Sequences of one batch.
    Batch(Vec<Vec<u32>>),
    /// A text that may be longer than the model's positions.
    LongText(Vec<u32>),
}

impl Input {
    /// The text of a file.
    pub(crate) fn of_file(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Input::LongText(text))
    }

    /// The tokens, for a model.
    pub(crate) fn tokens(&self, model: &Model) -> jetmoe_observe::Result<Tokens> {
        Ok(match self {
            Input::Ids(sequences) => Tokens::Batch(sequences.clone()),
            Input::Texts(texts) => {
                Tokens::Batch(texts.iter().map(|text| encode(model, text)).collect::<Result<_, _>>()?)
            }
            Input::LongText(text) => Tokens::LongText(encode(model, text)?),
        })
    }
}

impl ObservationArguments {
    /// Loads a model of the same arguments, with the outputs for `value`.
    pub(crate) fn load(&self, model: &ModelArguments, value: ObservedValue) -> anyhow::Result<Model> {
        let mut arguments = model.clone();
        arguments.observed = Some(value);
        anyhow::ensure!(
            self.backend != Some(BackendName::REFERENCE),
            "the reference runs no graph, and this command shows what a graph computes\n  choose another --backend"
        );
        let opened = arguments.open()?;
        let backend = match &opened {
            // the default backend of a checkpoint is the reference
            Opened::Checkpoint(_) => self.backend.or_else(|| arguments.backends().first().copied()),
            Opened::Artifact(_) => self.backend,
        };
        arguments.load(&opened, backend)
    }

    /// How the tokens are split into steps.
    pub(crate) fn steps(&self) -> StepOptions {
        StepOptions::default().with_cached(self.cached).with_chunk(self.chunk)
    }

    /// Reads what is to be observed.
    pub(crate) fn read_input(&self) -> anyhow::Result<Input> {
        let input = self.input()?;
        let is_empty = match &input {
            Input::Ids(_) => false,
            Input::Texts(texts) => texts.iter().any(String::is_empty),
            Input::LongText(text) => text.is_empty(),
        };
        anyhow::ensure!(
            !is_empty,
            "a text is empty\n  give texts as arguments, in a file, or on standard input"
        );
        Ok(input)
    }

    fn input(&self) -> anyhow::Result<Input> {
        if !self.ids.is_empty() {
            return Ok(Input::Ids(self.ids.iter().map(|TokenIds(ids)| ids.clone()).collect()));
        }
        if !self.texts.is_empty() {
            return Ok(Input::Texts(self.texts.clone()));
        }
        if let Some(path) = &self.file {
            return Input::of_file(path);
        }
        if io::stdin().is_terminal() {
            note("Type the text and end with Ctrl-D.");
        }
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("cannot read a text from standard input")?;
        Ok(Input::LongText(text))
    }
}

/// An invalid option of the library, as an error that names the flag.
pub(crate) fn as_cli_error(error: jetmoe_observe::Error) -> anyhow::Error {
    match error {
        jetmoe_observe::Error::Option { option, found, expected } => {
            anyhow::anyhow!("--{option} is {found}, expected {expected}")
        }
        other => other.into(),
    }
}
