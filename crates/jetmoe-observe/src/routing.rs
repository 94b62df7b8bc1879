//! Which experts each token takes.

use jetmoe_artifact::{ObservedValue, OutputName};
use jetmoe_rt::{Model, StepOutput, TokenBatch};
use ndarray::{ArrayView3, Ix3, s};
use serde::Serialize;

use crate::statistics::{balance_loss, entropy, load_entropy, loads, softmax};
use crate::steps::{Steps, batch, not_observed, observed_model, other_shape};
use crate::{Error, ObservedModel, ObservedToken, Result, StepOptions};

/// The experts that the tokens of a batch took in every router.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Routing {
    /// The model.
    pub model: ObservedModel,
    /// Experts of each router.
    pub experts: usize,
    /// Experts that a token takes in each router.
    pub experts_per_token: usize,
    /// The sequences of the batch, padding included.
    pub sequences: Vec<Vec<ObservedToken>>,
    /// The routers in the order in which they compute: attention and MLP of layer 0, of layer 1, and so on.
    pub routers: Vec<RouterObservation>,
    /// Balance loss of all tokens but padding.
    pub balance_loss: BalanceLoss,
}

/// The part of a layer that a router belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouterPart {
    /// The mixture of attention heads.
    Attention,
    /// The mixture of MLPs.
    Mlp,
}

/// What one router did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouterObservation {
    /// Its layer, from 0.
    pub layer: usize,
    /// Its part of the layer.
    pub part: RouterPart,
    /// Load of each expert, by its number.
    pub load: Vec<ExpertLoad>,
    /// Entropy of the shares in `load`, divided by the logarithm of the number of experts: 1 if all experts have the same
    /// share, 0 if one expert has all. 1 for a single expert.
    pub load_entropy: f64,
    /// Mean over the tokens of [`TokenRouting::entropy`]; 0 without tokens.
    pub mean_entropy: f64,
    /// The smallest [`TokenRouting::margin`]; `None` if no token has one.
    pub smallest_margin: Option<f32>,
    /// `tokens[sequence][token]`; `None` for padding.
    pub tokens: Vec<Vec<Option<TokenRouting>>>,
}

/// How much of the work an expert did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ExpertLoad {
    /// Tokens that took it.
    pub tokens: usize,
    /// Its share of all assignments, from 0 to 1; those of all experts sum up to 1. 0 without tokens.
    pub share: f64,
    /// Mean over the tokens of its probability in the softmax over all experts. 0 without tokens.
    pub mean_probability: f64,
}

/// What a router decided for one token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenRouting {
    /// The experts that it took, the best first, as the graph selected them.
    pub experts: Vec<usize>,
    /// Weight of each of them in the result, as the graph computed it: a softmax over their logits.
    pub gates: Vec<f32>,
    /// Logits of all experts.
    pub logits: Vec<f32>,
    /// Entropy of the softmax over all experts, in nats: 0 for a certain choice, the logarithm of the number of experts if all
    /// are equal.
    pub entropy: f32,
    /// Logit of the last expert that was taken, less the best logit of the others. Rounding changes a choice with a small one.
    /// `None` if all experts are taken.
    pub margin: Option<f32>,
}

impl TokenRouting {
    /// Probability of each expert, by the softmax over all of them.
    pub fn probabilities(&self) -> Vec<f64> {
        softmax(&self.logits)
    }
}

/// Balance loss by `load_balancing_loss_func` of transformers: experts times the sum over the experts of assignments per token
/// times mean probability. It is the number of experts per token if all experts have the same share and probability, and larger
/// otherwise. 0 without tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BalanceLoss {
    /// Over all routers, each counted once.
    pub all: f64,
    /// Over the routers of attention.
    pub attention: f64,
    /// Over the routers of the MLPs.
    pub mlp: f64,
    /// Over all routers, those of attention counted twice, as `JetMoeForCausalLM` of transformers 5.23 does.
    pub transformers: f64,
}

/// Runs a batch, and reads what the routers decide for its tokens. The model is loaded with [`ObservedValue::Routing`].
///
/// # Errors
/// [`Error::NotObserved`] for a model that is not, [`Error::Option`] for steps that the batch cannot be split
/// into, or an error of the model.
pub fn routing(model: &Model, batch: &TokenBatch, options: &StepOptions) -> Result<Routing> {
    let mut recorder = Recorder::new(model)?;
    recorder.record(batch, options)?;
    Ok(recorder.finish())
}

/// [`routing`] of a text that may have more tokens than the model has positions: it is split into windows of `window` tokens,
/// or fewer if the model has fewer positions, and each is read alone, as a sequence of the result.
///
/// # Errors
/// As [`routing`], and [`jetmoe_rt::Error::EmptyPrompt`] without tokens.
pub fn routing_of_windows(
    model: &Model,
    ids: &[u32],
    window: usize,
    options: &StepOptions,
) -> Result<Routing> {
    if window == 0 {
        return Err(Error::Option { option: "window", found: 0, expected: "at least 1".to_owned() });
    }
    if ids.is_empty() {
        return Err(jetmoe_rt::Error::EmptyPrompt { index: 0 }.into());
    }
    let window = window.min(model.config().max_position_embeddings);
    let mut recorder = Recorder::new(model)?;
    for ids in ids.chunks(window) {
        let mut options = options.clone();
        if ids.len() < window {
            // the last window may have fewer tokens than are to be cached
            options.cached = options.cached.min(ids.len() - 1);
        }
        recorder.record(&batch(model, &[ids.to_vec()])?, &options)?;
    }
    Ok(recorder.finish())
}

/// What the routers decided so far.
struct Recorder<'a> {
    model: &'a Model,
    observed: ObservedModel,
    sequences: Vec<Vec<ObservedToken>>,
    /// `tokens[router][sequence][token]`
    tokens: Vec<Vec<Vec<Option<TokenRouting>>>>,
}

const PARTS: [RouterPart; 2] = [RouterPart::Attention, RouterPart::Mlp];

impl<'a> Recorder<'a> {
    fn new(model: &'a Model) -> Result<Self> {
        let observed = observed_model(model, ObservedValue::Routing)?;
        let tokens = vec![Vec::new(); PARTS.len() * model.config().num_hidden_layers];
        Ok(Recorder { model, observed, sequences: Vec::new(), tokens })
    }

    /// Runs a batch and appends its sequences.
    fn record(&mut self, batch: &TokenBatch, options: &StepOptions) -> Result<()> {
        let mut steps = Steps::new(self.model, batch, options)?;
        let before = self.sequences.len();
        let (rows, length) = batch.ids().dim();
        for router in &mut self.tokens {
            router.resize(before + rows, vec![None; length]);
        }
        let (model, tokens) = (self.model, &mut self.tokens);
        steps.run(|columns, output| {
            for (index, router) in tokens.iter_mut().enumerate() {
                let (layer, part) = (index / PARTS.len(), PARTS[index % PARTS.len()]);
                let step = RouterStep::new(model, output, layer, part, [rows, columns.len()])?;
                for (row, tokens) in router[before..].iter_mut().enumerate() {
                    for (place, column) in
                        columns.clone().enumerate().filter(|(_, column)| batch.mask()[(row, *column)])
                    {
                        tokens[column] = Some(step.token(row, place)?);
                    }
                }
            }
            Ok(())
        })?;
        self.sequences.extend(steps.tokens());
        Ok(())
    }

    fn finish(self) -> Routing {
        let config = self.model.config();
        let (experts, experts_per_token) = (config.num_local_experts, config.num_experts_per_token);
        let routers = self.tokens.into_iter().enumerate().map(|(index, tokens)| {
            let all = || tokens.iter().flatten().flatten();
            let load = loads(experts, all());
            let count = all().count().max(1) as f64;
            RouterObservation {
                layer: index / PARTS.len(),
                part: PARTS[index % PARTS.len()],
                load_entropy: load_entropy(&load),
                load,
                mean_entropy: all().map(|token| f64::from(token.entropy)).sum::<f64>() / count,
                smallest_margin: all().filter_map(|token| token.margin).min_by(f32::total_cmp),
                tokens,
            }
        });
        let routers: Vec<RouterObservation> = routers.collect();
        Routing {
            model: self.observed,
            experts,
            experts_per_token,
            sequences: self.sequences,
            balance_loss: balance_loss(&routers, experts, experts_per_token),
            routers,
        }
    }
}

/// The outputs of a step that belong to one router.
struct RouterStep<'a> {
    model: &'a Model,
    name: OutputName,
    /// `[batch, tokens, experts]`
    logits: ArrayView3<'a, f32>,
    /// Numbers and gates, `[batch, tokens, 2 * k]`.
    choice: ArrayView3<'a, f32>,
}

impl<'a> RouterStep<'a> {
    fn new(
        model: &'a Model,
        output: &'a StepOutput,
        layer: usize,
        part: RouterPart,
        [rows, tokens]: [usize; 2],
    ) -> Result<Self> {
        let (logits, choice) = match part {
            RouterPart::Attention => {
                (OutputName::AttentionRouterLogits(layer), OutputName::AttentionRouterChoice(layer))
            }
            RouterPart::Mlp => (OutputName::MlpRouterLogits(layer), OutputName::MlpRouterChoice(layer)),
        };
        let view = |name, width| {
            let values = output.get(name).ok_or_else(|| not_observed(model, ObservedValue::Routing))?;
            let expected = [rows, tokens, width];
            let view =
                values.view().into_dimensionality::<Ix3>().ok().filter(|view| *view.shape() == expected);
            view.ok_or_else(|| other_shape(model, name, values.shape(), &expected))
        };
        let config = model.config();
        Ok(RouterStep {
            model,
            name: choice,
            logits: view(logits, config.num_local_experts)?,
            choice: view(choice, 2 * config.num_experts_per_token)?,
        })
    }

    fn token(&self, row: usize, token: usize) -> Result<TokenRouting> {
        let logits = self.logits.slice(s![row, token, ..]).to_vec();
        let choice = self.choice.slice(s![row, token, ..]).to_vec();
        let (numbers, gates) = choice.split_at(choice.len() / 2);
        let is_expert =
            |number: &f32| (0..logits.len()).contains(&(*number as usize)) && number.fract() == 0.0;
        if !numbers.iter().all(is_expert) {
            return Err(Error::Output {
                backend: self.model.backend(),
                name: self.name,
                found: numbers.iter().copied().map(f64::from).collect(),
                expected: format!("numbers of experts below {}", logits.len()),
            });
        }
        let experts: Vec<usize> = numbers.iter().map(|number| *number as usize).collect();
        let others = logits.iter().enumerate().filter(|(expert, _)| !experts.contains(expert));
        let best_other = others.map(|(_, logit)| *logit).max_by(f32::total_cmp);
        let last = experts.last().map(|expert| logits[*expert]);
        Ok(TokenRouting {
            entropy: entropy(softmax(&logits)) as f32,
            margin: last.zip(best_other).map(|(last, other)| last - other),
            gates: gates.to_vec(),
            experts,
            logits,
        })
    }
}
