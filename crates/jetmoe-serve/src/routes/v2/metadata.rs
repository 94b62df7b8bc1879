//! What a model takes and returns, as the protocol describes it.

use jetmoe_rt::{Model, Task};
use serde::Serialize;
use utoipa::ToSchema;

use super::VERSION;
use super::tensor::DataType;

/// Name of the input of token ids.
pub(crate) const INPUT_IDS: &str = "input_ids";
/// Name of the input that says which tokens count.
pub(crate) const ATTENTION_MASK: &str = "attention_mask";
/// Name of the input of texts.
pub(crate) const TEXT_INPUT: &str = "text_input";
/// Name of the output of texts.
pub(crate) const TEXT_OUTPUT: &str = "text_output";
/// Name of the output of logits.
pub(crate) const LOGITS: &str = "logits";
/// Name of the output of hidden states.
pub(crate) const LAST_HIDDEN_STATE: &str = "last_hidden_state";

/// The metadata of a model. A size of -1 is any. A request has the input `input_ids`, which gives the first output, with
/// `attention_mask` if it likes; or, of a causal language model, the input `text_input`, which gives `text_output`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct ModelMetadata {
    pub(crate) name: String,
    versions: [&'static str; 1],
    /// `onnx_onnxv1`.
    platform: &'static str,
    inputs: Vec<TensorMetadata>,
    outputs: Vec<TensorMetadata>,
}

/// The metadata of a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct TensorMetadata {
    name: &'static str,
    datatype: DataType,
    /// Its sizes; -1 for any.
    shape: Vec<i64>,
}

impl ModelMetadata {
    pub(crate) fn new(name: String, model: &Model) -> Self {
        let config = model.config();
        let inputs = inputs(model).into_iter().map(|(name, datatype)| TensorMetadata {
            name,
            datatype,
            shape: if name == TEXT_INPUT { vec![-1] } else { vec![-1, -1] },
        });
        let tensor = match model.task() {
            Task::CausalLm => (LOGITS, vec![-1, -1, size(config.vocab_size)]),
            Task::Backbone => (LAST_HIDDEN_STATE, vec![-1, -1, size(config.hidden_size)]),
            Task::SequenceClassification => (LOGITS, vec![-1, size(config.num_labels())]),
        };
        let (name_of_tensor, shape) = tensor;
        let mut outputs = vec![TensorMetadata { name: name_of_tensor, datatype: DataType::Fp32, shape }];
        if takes_text(model) {
            outputs.push(TensorMetadata { name: TEXT_OUTPUT, datatype: DataType::Bytes, shape: vec![-1] });
        }
        ModelMetadata {
            name,
            versions: [VERSION],
            platform: "onnx_onnxv1",
            inputs: inputs.collect(),
            outputs,
        }
    }
}

/// Names and datatypes of a model's inputs.
pub(crate) fn inputs(model: &Model) -> Vec<(&'static str, DataType)> {
    let mut inputs = vec![(INPUT_IDS, DataType::Int64), (ATTENTION_MASK, DataType::Int64)];
    if takes_text(model) {
        inputs.push((TEXT_INPUT, DataType::Bytes));
    }
    inputs
}

/// Whether a model continues texts.
fn takes_text(model: &Model) -> bool {
    model.task() == Task::CausalLm && model.tokenizer().is_some()
}

fn size(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
