//! Bytes and operations of one step, from the configuration and the storage of the graph's weights.

use jetmoe_artifact::{GraphRecord, ModelPart, Profile, WeightPlan};
use jetmoe_checkpoint::ModelConfig;

/// A step with `new_tokens` of each of `batch` sequences, after `past_tokens` that are cached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) batch: usize,
    pub(crate) new_tokens: usize,
    pub(crate) past_tokens: usize,
}

/// Memory traffic and arithmetic of a graph.
pub(crate) struct Traffic<'a> {
    config: &'a ModelConfig,
    record: &'a GraphRecord,
    plan: WeightPlan,
}

impl<'a> Traffic<'a> {
    pub(crate) fn new(config: &'a ModelConfig, record: &'a GraphRecord) -> Self {
        Traffic { config, record, plan: record.weights.clone().unwrap_or_default() }
    }

    /// Bytes of the stored weights that a step reads: routers, key/value projections, the head, and the expected number of
    /// experts that its tokens choose. Leaves out the embedding, of which a token reads one row, and norms and biases,
    /// which are vectors.
    pub(crate) fn weight_bytes(&self, step: Step) -> f64 {
        let config = self.config;
        let (hidden, kv_width) = (config.hidden_size, config.kv_width());
        let experts = expected_experts(
            config.num_local_experts,
            config.num_experts_per_token,
            step.batch * step.new_tokens,
        );
        let layers = (0..config.num_hidden_layers).map(|layer| {
            let layer = Some(layer);
            let kv = self.part_bytes(ModelPart::KvProj, layer, 2 * kv_width * hidden);
            let attention = self.part_bytes(ModelPart::Attention, layer, 2 * kv_width * hidden);
            let mlp = self.part_bytes(ModelPart::Mlp, layer, 3 * config.intermediate_size * hidden);
            let routers = (2 * config.num_local_experts * hidden) as f64 * self.plain_bytes();
            kv + routers + experts * (attention + mlp)
        });
        layers.sum::<f64>() + self.part_bytes(ModelPart::LmHead, None, config.vocab_size * hidden)
    }

    /// Bytes of the key/value cache that a step reads.
    pub(crate) fn cache_bytes(&self, step: Step) -> f64 {
        let config = self.config;
        let head = match self.record.kv_cache.and_then(|format| format.row_bytes(config.kv_channels)) {
            Some(bytes) => bytes as f64,
            None => config.kv_channels as f64 * self.activation_bytes(),
        };
        let heads = 2 * config.num_hidden_layers * config.num_key_value_heads;
        (heads * step.batch * step.past_tokens) as f64 * head
    }

    /// Float32 operations of a step's products, where a multiply-add counts as two: those with the weights, including the
    /// head for every token, and those of queries with the keys and values they attend to.
    pub(crate) fn operations(&self, step: Step) -> f64 {
        let config = self.config;
        let (hidden, kv_width) = (config.hidden_size, config.kv_width());
        let expert = 2 * kv_width * hidden + 3 * config.intermediate_size * hidden;
        let layer = 2 * kv_width * hidden
            + 2 * config.num_local_experts * hidden
            + config.num_experts_per_token * expert;
        let weights = config.num_hidden_layers * layer + config.vocab_size * hidden;
        let tokens = (step.batch * step.new_tokens) as f64;
        // the first new token attends to the past and itself, the last one to all new tokens too
        let attended = step.past_tokens as f64 + (step.new_tokens as f64 + 1.0) / 2.0;
        let heads = config.num_hidden_layers * config.num_attention_heads() * config.kv_channels;
        tokens * (2.0 * weights as f64 + 4.0 * heads as f64 * attended)
    }

    fn part_bytes(&self, part: ModelPart, layer: Option<usize>, weights: usize) -> f64 {
        let scheme = self.plan.scheme(self.record.precision, part, layer);
        let scheme = if self.record.profile == Profile::Native { scheme.packed() } else { scheme };
        weights as f64 * scheme.bytes_per_weight()
    }

    fn activation_bytes(&self) -> f64 {
        self.record.precision.activations().bytes(1) as f64
    }

    /// Bytes of a weight that is never quantized.
    fn plain_bytes(&self) -> f64 {
        match self.record.precision.format() {
            format if format.is_quantized() => self.activation_bytes(),
            format => format.bits() as f64 / 8.0,
        }
    }
}

/// Expected number of experts that at least one token chooses, if each token chooses `chosen` of `experts` independently
/// and evenly: E · (1 − (1 − k/E)ⁿ).
fn expected_experts(experts: usize, chosen: usize, tokens: usize) -> f64 {
    let (experts, chosen) = (experts as f64, chosen as f64);
    experts * (1.0 - (1.0 - chosen / experts).powf(tokens as f64))
}

#[cfg(test)]
mod tests;
