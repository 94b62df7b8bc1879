//! A model for tests: its logits are a function of the tokens that a position attends to. It can be held, and told to fail.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use jetmoe_rt::ndarray::{Array2, Array3, Axis, concatenate, s};
use jetmoe_rt::{
    BackendError, GenerationConfig, GraphSession, LoadedGraph, LogitsToKeep, Model, ModelConfig,
    ObservedValue, OutputName, Precision, Profile, Signature, StepInputs, Task, TensorMap, Tokenizer,
};
use jetmoe_testing::fixtures;

type Scores = dyn Fn(&[u32]) -> Vec<f32> + Send + Sync;
/// What happens to a step that reads tokens after others: `(before, new)`.
type Faults = dyn Fn(&[u32], &[u32]) -> Option<Fault> + Send + Sync;

/// How a step goes wrong.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    Error,
    Panic,
}

/// Tokens that steps read, by sequence; the first number tells sequences apart.
pub(super) type Log = Arc<Mutex<Vec<(usize, Vec<u32>)>>>;

/// The parts of a model, before it is loaded.
pub(super) struct FakeModel {
    pub(super) config: ModelConfig,
    scores: Arc<Scores>,
    faults: Arc<Faults>,
    observes: bool,
    pub(super) gate: Gate,
    pub(super) log: Log,
}

/// The tokenizer of jetmoe-mini, read once.
pub(super) fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> =
        LazyLock::new(|| Tokenizer::open(&fixtures::checkpoint("jetmoe-mini")).unwrap().unwrap());
    &TOKENIZER
}

impl FakeModel {
    /// A model with the vocabulary of jetmoe-mini. `scores` maps the tokens up to a position, its own last, to logits.
    pub(super) fn new(scores: impl Fn(&[u32]) -> Vec<f32> + Send + Sync + 'static) -> Self {
        let config = ModelConfig::read(&fixtures::checkpoint("jetmoe-mini").join("config.json")).unwrap();
        let (gate, log) = (Gate::default(), Log::default());
        FakeModel {
            config,
            scores: Arc::new(scores),
            faults: Arc::new(|_, _| None),
            observes: false,
            gate,
            log,
        }
    }

    /// A model whose logits are pseudo-random and depend on every token and its position. Now and then it ends a sequence.
    pub(super) fn hashed() -> Self {
        Self::new(|seen| {
            let mut logits = hashed(seen, 2048);
            logits[2] += if seen.len() % 7 == 0 { 1.0 } else { 0.0 };
            logits
        })
    }

    pub(super) fn with_faults(
        mut self,
        faults: impl Fn(&[u32], &[u32]) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        self.faults = Arc::new(faults);
        self
    }

    pub(super) fn with_routing(mut self) -> Self {
        self.observes = true;
        self
    }

    pub(super) fn load(&self) -> Model {
        let none = BTreeSet::new();
        let mut signature =
            Signature::new(&self.config, Task::CausalLm, Precision::F32, Profile::Portable, &none);
        if self.observes {
            signature = signature.with_observed(&self.config, &BTreeSet::from([ObservedValue::Routing]));
        }
        let graph = FakeGraph {
            signature,
            config: self.config.clone(),
            scores: Arc::clone(&self.scores),
            faults: Arc::clone(&self.faults),
            observes: self.observes,
            gate: self.gate.clone(),
            log: Arc::clone(&self.log),
            sessions: Arc::default(),
        };
        let generation_config = GenerationConfig::from_model_config(&self.config);
        let tokenizer = Some(tokenizer().clone());
        Model::from_graph(Arc::new(graph), self.config.clone(), Task::CausalLm, tokenizer, generation_config)
    }

    /// Takes what was read so far.
    pub(super) fn take_log(&self) -> Vec<(usize, Vec<u32>)> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

/// Pseudo-random logits that depend on every token and its position only.
pub(super) fn hashed(seen: &[u32], vocab_size: usize) -> Vec<f32> {
    let mix = |state: u64, value: u64| {
        let mixed = (state ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed ^ (mixed >> 29)
    };
    let state = seen.iter().fold(1, |state, id| mix(state, u64::from(*id)));
    (0..vocab_size).map(|id| (mix(mix(state, id as u64), 5) >> 40) as f32 / (1 << 21) as f32).collect()
}

/// The experts that a token takes in a router of a fake model.
pub(super) fn experts(config: &ModelConfig, token: u32, layer: usize, part: usize) -> Vec<u32> {
    let first = token as usize + 3 * layer + part;
    (0..config.num_experts_per_token).map(|k| ((first + k) % config.num_local_experts) as u32).collect()
}

/// Holds steps until it is opened. It begins open.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    /// Steps that pass; `None` for all.
    passes: Option<usize>,
    waiting: usize,
}

impl Gate {
    fn set(&self, passes: Option<usize>) {
        self.0.0.lock().unwrap().passes = passes;
        self.0.1.notify_all();
    }

    pub(super) fn close(&self) {
        self.set(Some(0));
    }

    pub(super) fn open(&self) {
        self.set(None);
    }

    /// Lets some more steps of a sequence pass, and no others.
    pub(super) fn allow(&self, steps: usize) {
        self.set(Some(steps));
    }

    /// Whether a step waits.
    pub(super) fn holds(&self) -> bool {
        self.0.0.lock().unwrap().waiting > 0
    }

    /// Waits until the gate lets a step pass, or until the step is cancelled; whether it was.
    fn pass(&self, inputs: &StepInputs) -> bool {
        let (state, opened) = &*self.0;
        let mut state = state.lock().unwrap();
        state.waiting += 1;
        while state.passes == Some(0) && !inputs.cancellation.is_cancelled() {
            let waited = opened.wait_timeout(state, Duration::from_millis(2));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.waiting -= 1;
        state.passes = state.passes.map(|passes| passes.saturating_sub(1));
        inputs.cancellation.is_cancelled()
    }
}

struct FakeGraph {
    signature: Signature,
    config: ModelConfig,
    scores: Arc<Scores>,
    faults: Arc<Faults>,
    observes: bool,
    gate: Gate,
    log: Log,
    sessions: Arc<Mutex<usize>>,
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

    fn start(&self) -> Result<Box<dyn GraphSession>, BackendError> {
        let mut sessions = self.sessions.lock().unwrap();
        *sessions += 1;
        Ok(Box::new(FakeSession {
            number: *sessions,
            config: self.config.clone(),
            scores: Arc::clone(&self.scores),
            faults: Arc::clone(&self.faults),
            observes: self.observes,
            gate: self.gate.clone(),
            log: Arc::clone(&self.log),
            ids: None,
        }))
    }
}

struct FakeSession {
    number: usize,
    config: ModelConfig,
    scores: Arc<Scores>,
    faults: Arc<Faults>,
    observes: bool,
    gate: Gate,
    log: Log,
    /// `[batch, tokens so far]`
    ids: Option<Array2<i64>>,
}

impl fmt::Debug for FakeSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeSession")
    }
}

impl FakeSession {
    /// What the routers choose for new tokens.
    fn routing(&self, new: &[u32]) -> TensorMap {
        let (config, mut outputs) = (&self.config, TensorMap::new());
        let gate = 1.0 / config.num_experts_per_token as f32;
        for layer in 0..config.num_hidden_layers {
            let names = [OutputName::AttentionRouterChoice(layer), OutputName::MlpRouterChoice(layer)];
            for (part, name) in names.into_iter().enumerate() {
                let k = config.num_experts_per_token;
                let choice = Array3::from_shape_fn((1, new.len(), 2 * k), |(_, token, column)| {
                    let experts = experts(config, new[token], layer, part);
                    experts.get(column).map_or(gate, |expert| *expert as f32)
                });
                outputs.insert(name, choice.into_dyn());
            }
        }
        outputs
    }
}

impl GraphSession for FakeSession {
    fn run(&mut self, inputs: &StepInputs) -> Result<TensorMap, BackendError> {
        let (batch, count) = inputs.input_ids.dim();
        assert_eq!(batch, 1, "slots step their sequences one by one");
        if self.gate.pass(inputs) {
            return Err(BackendError::Cancelled { backend: "fake" });
        }
        let to_ids = |ids: &Array2<i64>| ids.iter().map(|id| *id as u32).collect::<Vec<u32>>();
        let before = self.ids.as_ref().map(&to_ids).unwrap_or_default();
        let new = to_ids(&inputs.input_ids);
        match (self.faults)(&before, &new) {
            None => {}
            Some(Fault::Error) => {
                return Err(BackendError::Run { backend: "fake", source: "told to fail".into() });
            }
            Some(Fault::Panic) => panic!("told to panic"),
        }
        self.log.lock().unwrap().push((self.number, new.clone()));
        let ids = match self.ids.take() {
            Some(past) => concatenate(Axis(1), &[past.view(), inputs.input_ids.view()]).unwrap(),
            None => inputs.input_ids.clone(),
        };
        assert_eq!(ids.shape(), inputs.attention_mask.shape());
        let seen = to_ids(&ids);
        let first = match inputs.logits {
            LogitsToKeep::All => 1,
            LogitsToKeep::Last => count,
        };
        let rows: Vec<f32> =
            (first..=count).flat_map(|read| (self.scores)(&seen[..before.len() + read])).collect();
        let kept = count + 1 - first;
        let logits = Array3::from_shape_vec((1, kept, rows.len() / kept), rows).unwrap();
        self.ids = Some(ids);
        let mut outputs = if self.observes { self.routing(&new) } else { TensorMap::new() };
        outputs.insert(OutputName::Logits, logits.into_dyn());
        Ok(outputs)
    }

    fn cache(&self) -> Result<TensorMap, BackendError> {
        Ok(TensorMap::new())
    }

    fn truncate(&mut self, tokens: usize) -> Result<(), BackendError> {
        self.ids = self.ids.take().filter(|_| tokens > 0).map(|ids| ids.slice(s![.., ..tokens]).to_owned());
        Ok(())
    }
}
