//! The model: embedding, decoder layers, final norm and head, as one graph. After `JetMoeModel` of transformers' `modeling_jetmoe.py`.

mod activation;
mod attention;
mod dispatch;
mod embedding;
mod experts;
mod head;
mod mask;
mod norm;
mod padding;
mod pieces;
mod rotary;
mod router;
mod scaled_dot_product;

use jetmoe_artifact::{CacheUpdate, InputName, OutputName, Signature, Task};
use jetmoe_checkpoint::{ModelConfig, names};

use self::attention::Attention;
use self::embedding::EmbeddingTable;
use self::experts::MlpExperts;
use self::norm::rms_norm;
use self::padding::Padding;
use self::scaled_dot_product::{Past, ScaledDotProduct};
use crate::builder::{Builder, Value};
use crate::{Dimension, Error, Graph, GraphOptions, Result, Shape, Weight};

/// Sizes that every part of the model needs.
pub(crate) struct Sizes {
    /// Sequences.
    batch: Dimension,
    /// New tokens per sequence.
    sequence: Dimension,
    /// Cached tokens per sequence; 0 for a task without a cache.
    past: Dimension,
    /// New tokens of all sequences.
    tokens: Dimension,
    /// One row per new token and chosen expert.
    slots: Dimension,
}

impl Sizes {
    fn new(input_ids: &Value, past: Dimension, experts_per_token: usize) -> Self {
        let batch = input_ids.dimension(0).clone();
        let sequence = input_ids.dimension(1).clone();
        let tokens = &batch * &sequence;
        let slots = &tokens * &Dimension::from(experts_per_token);
        Sizes { batch, sequence, past, tokens, slots }
    }

    /// `[batch, sequence, ...rest]`
    fn per_token(&self, rest: &[usize]) -> Shape {
        let rest = rest.iter().map(|size| Dimension::from(*size));
        Shape([self.batch.clone(), self.sequence.clone()].into_iter().chain(rest).collect())
    }
}

/// Builds the graph of a configuration.
///
/// # Errors
/// A refusal names the node and all shapes; with a validated configuration it means a mistake in this crate.
pub fn build(config: &ModelConfig, options: &GraphOptions) -> Result<Graph> {
    options.weights.check(config.num_hidden_layers)?;
    let (profile, precision) = (options.profile, options.precision);
    if !profile.has(precision) {
        return Err(Error::NoSuchGraph { profile, precision });
    }
    let mut signature =
        Signature::new(config, options.task, options.precision, options.profile, &options.optional_outputs);
    if let Some(format) = options.attention_cache() {
        signature = signature.with_kv_cache(config, format);
    }
    let mut builder = Builder::new(options);
    let inputs: Vec<(InputName, Value)> =
        signature.inputs.iter().map(|spec| (spec.name, builder.input(spec))).collect();
    let wanted: Vec<OutputName> = signature.outputs.iter().map(|spec| spec.name).collect();
    let optional: Vec<(InputName, Value)> =
        signature.optional_inputs.iter().map(|spec| (spec.name, builder.optional_input(spec))).collect();
    let inputs = [inputs, optional].concat();
    let outputs = compute(&mut builder, config, options.task, signature.cache_update, &inputs, &wanted)?;
    for spec in &signature.outputs {
        match outputs.iter().find(|(name, _)| *name == spec.name) {
            Some((_, value)) => {
                let value = builder.scope("outputs", |builder| Ok(builder.cast(value, spec.element)))?;
                builder.output(spec, &value)?;
            }
            None => return Err(Error::NoOutput { output: spec.name.to_string() }),
        }
    }
    Ok(builder.finish())
}

/// The outputs that are wanted, and perhaps others that come for free.
fn compute(
    builder: &mut Builder,
    config: &ModelConfig,
    task: Task,
    cache_update: CacheUpdate,
    inputs: &[(InputName, Value)],
    wanted: &[OutputName],
) -> Result<Vec<(OutputName, Value)>> {
    let input =
        |wanted: InputName| inputs.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.clone());
    let (Some(input_ids), Some(attention_mask), Some(position_ids)) =
        (input(InputName::InputIds), input(InputName::AttentionMask), input(InputName::PositionIds))
    else {
        unreachable!("every signature begins with ids, mask and positions")
    };
    let hidden_size = config.hidden_size;
    let past = input(InputName::PastKey(0)).map_or(Dimension::from(0_i64), |key| key.dimension(2).clone());
    let sizes = Sizes::new(&input_ids, past, config.num_experts_per_token);
    let mut outputs = Vec::new();

    let (padding, input_ids, position_ids) = builder.scope("padding", |builder| {
        let padding = Padding::new(builder, cache_update, (&attention_mask, &input_ids), &sizes)?;
        let input_ids = padding.moved(builder, &input_ids, &sizes)?; // [batch, seq]
        let position_ids = padding.moved(builder, &position_ids, &sizes)?; // [batch, seq]
        Ok((padding, input_ids, position_ids))
    })?;
    let per_token = |builder: &mut Builder, rows: &Value| {
        let width = rows.dimension(1).clone();
        let shape = Shape(vec![sizes.batch.clone(), sizes.sequence.clone(), width]);
        builder.scope("outputs", |builder| {
            let rows = padding.restored(builder, rows)?; // [tokens, width]
            builder.reshape(&rows, shape) // [batch, seq, width]
        })
    };

    let sequences = input(InputName::Sequences);
    let scaled_dot_product = builder.scope("mask", |builder| {
        let rows = (&attention_mask, sequences.as_ref(), &input_ids);
        ScaledDotProduct::new(builder, config, cache_update, rows, &sizes)
    })?;
    let rotary = builder.scope("rotary", |builder| {
        rotary::Rotary::new(builder, config, &position_ids, &sizes, cache_update)
    })?;
    let (table, embedding) = builder.scope("embedding", |builder| {
        let table = EmbeddingTable::new(builder, config, task)?;
        let embedding = table.embed(builder, config, &input_ids)?; // [batch, seq, hidden]
        Ok((table, embedding))
    })?;

    // between the layers, tokens of all sequences are the rows of one matrix
    let rows = Shape(vec![sizes.tokens.clone(), Dimension::from(hidden_size)]);
    let mut hidden = builder.scope("embedding", |builder| builder.reshape(&embedding, rows))?; // [tokens, hidden]
    if wanted.contains(&OutputName::HiddenState(0)) {
        outputs.push((OutputName::HiddenState(0), per_token(builder, &hidden)?));
    }

    for layer in 0..config.num_hidden_layers {
        let past = match (input(InputName::PastKey(layer)), input(InputName::PastValue(layer))) {
            (Some(key), Some(value)) => Some(Past { key, value }),
            _ => None,
        };
        let result = builder.scope(format!("layers.{layer}"), |builder| {
            let normed = builder.scope("input_layernorm", |builder| {
                let weight = builder.vector(Weight::new(names::input_norm(layer), vec![hidden_size]));
                rms_norm(builder, &hidden, &weight, ModelConfig::LAYER_NORM_EPS)
            })?; // [tokens, hidden]
            let attention = builder.scope("self_attention", |builder| {
                Attention {
                    config,
                    layer,
                    sizes: &sizes,
                    scaled_dot_product: &scaled_dot_product,
                    rotary: &rotary,
                }
                .build(builder, &normed, past)
            })?;
            let after_attention =
                builder.scope("after_attention", |builder| builder.add(&hidden, &attention.output))?; // [tokens, hidden]

            let normed = builder.scope("post_attention_layernorm", |builder| {
                let weight =
                    builder.vector(Weight::new(names::post_attention_norm(layer), vec![hidden_size]));
                rms_norm(builder, &after_attention, &weight, ModelConfig::LAYER_NORM_EPS)
            })?; // [tokens, hidden]
            let mlp = builder.scope("mlp", |builder| {
                MlpExperts { config, layer, sizes: &sizes }.build(builder, &normed)
            })?;
            let output = builder.scope("after_mlp", |builder| builder.add(&after_attention, &mlp.output))?; // [tokens, hidden]
            Ok((attention, mlp, output))
        });
        let (attention, mlp, output) = result?;
        hidden = output;

        outputs.push((OutputName::PresentKey(layer), attention.present_key));
        outputs.push((OutputName::PresentValue(layer), attention.present_value));
        for (name, rows) in [
            (OutputName::AttentionRouterLogits(layer), &attention.router_logits),
            (OutputName::MlpRouterLogits(layer), &mlp.router_logits),
            (OutputName::HiddenState(layer + 1), &hidden),
        ] {
            if wanted.contains(&name) {
                outputs.push((name, per_token(builder, rows)?));
            }
        }
    }

    let normed = builder.scope("norm", |builder| {
        let weight = builder.vector(Weight::new(names::FINAL_NORM.to_owned(), vec![hidden_size]));
        rms_norm(builder, &hidden, &weight, config.rms_norm_eps)
    })?; // [tokens, hidden]
    let normed = builder.scope("padding", |builder| padding.restored(builder, &normed))?; // [tokens, hidden]
    let head = builder.scope("head", |builder| match task {
        Task::CausalLm => {
            let wanted = input(InputName::LogitsToKeep);
            let logits = head::language_model(builder, config, &table, &normed, wanted.as_ref(), &sizes)?;
            Ok((OutputName::Logits, logits)) // [batch, seq or logits_length, vocab]
        }
        Task::Backbone => {
            let shape = sizes.per_token(&[hidden_size]);
            Ok((OutputName::LastHiddenState, builder.reshape(&normed, shape)?)) // [batch, seq, hidden]
        }
        Task::SequenceClassification => {
            Ok((OutputName::Logits, head::classification(builder, config, &normed, &input_ids, &sizes)?)) // [batch, labels]
        }
    })?;
    outputs.push(head);
    Ok(outputs)
}
