//! A model for tests: its logits are any function of the tokens that a position attends to.
//!
//! A position attends to the tokens that cache, mask and causal order leave visible. So a generator that loses a token,
//! feeds a padding token or mixes two rows gets other logits.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use jetmoe_artifact::{OutputName, Precision, Profile, Signature, Task};
use jetmoe_backend::{Error, GraphSession, LoadedGraph, LogitsToKeep, Result, StepInputs, TensorMap};
use jetmoe_checkpoint::{GenerationConfig, ModelConfig};
use jetmoe_text::Tokenizer;
use ndarray::{Array2, Array3, Axis, concatenate, s};

use crate::Model;

type Scores = dyn Fn(&[u32]) -> Vec<f32> + Send + Sync;

/// The parts of a fake model, before it is loaded.
pub(crate) struct FakeModel {
    pub(crate) config: ModelConfig,
    pub(crate) generation_config: GenerationConfig,
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) task: Task,
    scores: Arc<Scores>,
    /// Counts the steps of every session.
    pub(crate) steps: Arc<AtomicUsize>,
    /// Counts the tokens of every step and sequence, including padding.
    pub(crate) computed: Arc<AtomicUsize>,
    /// A step that reads this token fails.
    pub(crate) fails_at: Option<u32>,
    /// A step that is cancelled while it computes fails and leaves the session as it was, instead of ending.
    pub(crate) stops_in_step: bool,
}

impl FakeModel {
    /// A language model with the vocabulary and tokenizer of jetmoe-mini; `scores` maps the tokens up to a position,
    /// its own last, to `[vocab_size]` logits.
    pub(crate) fn new(scores: impl Fn(&[u32]) -> Vec<f32> + Send + Sync + 'static) -> Self {
        Self::of("jetmoe-mini", Task::CausalLm, scores)
    }

    /// A classifier with the configuration and tokenizer of jetmoe-mini-classifier; `scores` maps the tokens of a
    /// text to `[labels]` logits.
    pub(crate) fn classifier(scores: impl Fn(&[u32]) -> Vec<f32> + Send + Sync + 'static) -> Self {
        Self::of("jetmoe-mini-classifier", Task::SequenceClassification, scores)
    }

    fn of(name: &str, task: Task, scores: impl Fn(&[u32]) -> Vec<f32> + Send + Sync + 'static) -> Self {
        let config = ModelConfig::read(&fixture(name).join("config.json")).unwrap();
        FakeModel {
            generation_config: GenerationConfig::from_model_config(&config),
            config,
            tokenizer: Tokenizer::open(&fixture(name)).unwrap(),
            task,
            scores: Arc::new(scores),
            steps: Arc::default(),
            computed: Arc::default(),
            fails_at: None,
            stops_in_step: false,
        }
    }

    /// A language model that continues a prompt of `prompt_length` tokens with `script`, then with end-of-sequence tokens.
    pub(crate) fn scripted(prompt_length: usize, script: Vec<u32>) -> Self {
        let mut model = Self::new(|_| Vec::new());
        let (vocab_size, end) = (model.config.vocab_size, model.config.eos_token_ids[0]);
        model.scores = Arc::new(move |seen| {
            let new = seen.len().checked_sub(prompt_length); // inside the prompt there is none, and its logits are not used
            one_hot(new.and_then(|new| script.get(new).copied()).unwrap_or(end), vocab_size)
        });
        model
    }

    pub(crate) fn load(self) -> Model {
        let graph = FakeGraph {
            signature: Signature::new(
                &self.config,
                self.task,
                Precision::F32,
                Profile::Portable,
                &BTreeSet::new(),
            ),
            pad_token_id: self.config.pad_token_id,
            task: self.task,
            scores: self.scores,
            steps: self.steps,
            computed: self.computed,
            fails_at: self.fails_at,
            stops_in_step: self.stops_in_step,
        };
        Model::from_graph(Arc::new(graph), self.config, self.task, self.tokenizer, self.generation_config)
    }
}

/// Folder of a trained model.
pub(crate) fn fixture(name: &str) -> PathBuf {
    jetmoe_testing::fixtures::checkpoint(name)
}

/// The tokenizer of jetmoe-mini, read once.
pub(crate) fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> =
        LazyLock::new(|| Tokenizer::open(&fixture("jetmoe-mini")).unwrap().unwrap());
    &TOKENIZER
}

/// Logits that make one token almost certain.
pub(crate) fn one_hot(token: u32, vocab_size: usize) -> Vec<f32> {
    (0..vocab_size).map(|id| if id == token as usize { 30.0 } else { 0.0 }).collect()
}

/// Pseudo-random logits that depend on every token and its position only.
pub(crate) fn hashed(seen: &[u32], vocab_size: usize) -> Vec<f32> {
    let mix = |state: u64, value: u64| {
        let mixed = (state ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed ^ (mixed >> 29)
    };
    let state = seen.iter().fold(1, |state, id| mix(state, u64::from(*id)));
    (0..vocab_size).map(|id| (mix(mix(state, id as u64), 5) >> 40) as f32 / (1 << 21) as f32).collect()
}

struct FakeGraph {
    signature: Signature,
    pad_token_id: Option<u32>,
    task: Task,
    scores: Arc<Scores>,
    steps: Arc<AtomicUsize>,
    computed: Arc<AtomicUsize>,
    fails_at: Option<u32>,
    stops_in_step: bool,
}

impl fmt::Debug for FakeGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeGraph")
    }
}

impl LoadedGraph for FakeGraph {
    fn backend(&self) -> String {
        "fake 1.0".to_owned()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn start(&self) -> Result<Box<dyn GraphSession>> {
        Ok(Box::new(FakeSession {
            pad_token_id: self.pad_token_id,
            task: self.task,
            scores: Arc::clone(&self.scores),
            steps: Arc::clone(&self.steps),
            computed: Arc::clone(&self.computed),
            fails_at: self.fails_at,
            stops_in_step: self.stops_in_step,
            ids: None,
        }))
    }
}

struct FakeSession {
    pad_token_id: Option<u32>,
    task: Task,
    scores: Arc<Scores>,
    steps: Arc<AtomicUsize>,
    computed: Arc<AtomicUsize>,
    fails_at: Option<u32>,
    stops_in_step: bool,
    /// `[batch, tokens so far]`
    ids: Option<Array2<i64>>,
}

impl fmt::Debug for FakeSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeSession")
    }
}

impl FakeSession {
    /// `[batch, tokens, vocab_size]`
    fn next_token_scores(&mut self, inputs: &StepInputs) -> Array3<f32> {
        let ids = match self.ids.take() {
            Some(past) => concatenate(Axis(1), &[past.view(), inputs.input_ids.view()]).unwrap(),
            None => inputs.input_ids.clone(),
        };
        assert_eq!(ids.shape(), inputs.attention_mask.shape());
        let (batch, new) = inputs.input_ids.dim();
        let past = ids.ncols() - new;
        let mut rows = Vec::new();
        for row in 0..batch {
            for column in 0..new {
                let seen: Vec<u32> = (0..=past + column)
                    .filter(|column| inputs.attention_mask[[row, *column]] == 1)
                    .map(|column| ids[[row, column]] as u32)
                    .collect();
                let position = inputs.position_ids[[row, column]];
                assert_eq!(position, (seen.len() as i64 - 1).max(0), "row {row}, column {column}");
                // the logits of a padded position must not be used
                let counts = inputs.attention_mask[[row, past + column]] == 1;
                rows.extend(if counts {
                    (self.scores)(&seen)
                } else {
                    vec![f32::NAN; (self.scores)(&[0]).len()]
                });
            }
        }
        self.ids = Some(ids);
        let width = rows.len() / (batch * new);
        let scores = Array3::from_shape_vec((batch, new, width), rows).unwrap();
        match inputs.logits {
            LogitsToKeep::All => scores,
            LogitsToKeep::Last => scores.slice_move(s![.., new - 1.., ..]),
        }
    }

    /// `[batch, labels]`, from the tokens up to the last one that is not padding, as in the classification head.
    fn class_scores(&self, inputs: &StepInputs) -> Array2<f32> {
        let batch = inputs.input_ids.nrows();
        assert!(self.pad_token_id.is_some() || batch == 1, "without a padding token, one sequence at a time");
        let mut rows = Vec::new();
        for (ids, mask) in inputs.input_ids.rows().into_iter().zip(inputs.attention_mask.rows()) {
            let is_padding = |id: i64| self.pad_token_id.is_some_and(|pad| i64::from(pad) == id);
            let end = ids.iter().rposition(|id| !is_padding(*id)).unwrap() + 1;
            let seen: Vec<u32> = (0..end).filter(|i| mask[*i] == 1).map(|i| ids[i] as u32).collect();
            rows.extend((self.scores)(&seen));
        }
        let width = rows.len() / batch;
        Array2::from_shape_vec((batch, width), rows).unwrap()
    }
}

impl GraphSession for FakeSession {
    fn run(&mut self, inputs: &StepInputs) -> Result<TensorMap> {
        if self.fails_at.is_some_and(|token| inputs.input_ids.iter().any(|id| *id == i64::from(token))) {
            return Err(Error::Run { backend: "fake", source: "told to fail".into() });
        }
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.computed.fetch_add(inputs.input_ids.len(), Ordering::Relaxed);
        let before = self.ids.clone();
        let logits = match self.task {
            Task::CausalLm => self.next_token_scores(inputs).into_dyn(),
            Task::SequenceClassification => self.class_scores(inputs).into_dyn(),
            Task::Backbone => {
                return Err(Error::Run { backend: "fake", source: "no backbone".into() });
            }
        };
        if self.stops_in_step && inputs.cancellation.is_cancelled() {
            self.ids = before;
            return Err(Error::Cancelled { backend: "fake" });
        }
        Ok(TensorMap::from([(OutputName::Logits, logits)]))
    }

    fn cache(&self) -> Result<TensorMap> {
        Ok(TensorMap::new())
    }

    fn truncate(&mut self, tokens: usize) -> Result<()> {
        self.ids = self.ids.take().filter(|_| tokens > 0).map(|ids| ids.slice(s![.., ..tokens]).to_owned());
        Ok(())
    }
}
