//! What a checkpoint was trained as.

use serde_json::{Map, Value};

use super::reader::ConfigReader;

/// What the checkpoint was trained as, from `architectures`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// `JetMoeForCausalLM`, and `JetMoEForCausalLM` of the first hub upload.
    CausalLm,
    /// `JetMoeModel`: no head.
    Base,
    /// `JetMoeForSequenceClassification`.
    SequenceClassification,
}

/// Reads `model_type`, which says that it is JetMoE, and `architectures`, which says for what task.
///
/// As in transformers, `model_type` alone decides on the model. Names of wrapped classes, such as `FSDPJetMoeForCausalLM`
/// and `PeftModelForCausalLM`, count by their ending. Any other name counts as a language model, with a note.
pub(super) fn read(reader: &mut ConfigReader<'_>, object: &Map<String, Value>) -> Architecture {
    let model_type = reader.text("model_type");
    let name = match object.get("architectures") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name.as_str()),
        Some(Value::Array(names)) if names.is_empty() => None,
        Some(value) => {
            let name = value.get(0).and_then(Value::as_str);
            if name.is_none() {
                reader.problem("architectures", format!("is {value}, expected a list with one name"));
            }
            name
        }
    };
    match (model_type, name) {
        (Some("jetmoe"), _) => {}
        (Some(other), _) => {
            reader.problem("model_type", format!("is {other:?}, expected \"jetmoe\""));
        }
        // the first hub upload's name, which no other model has
        (None, Some(name)) if name.starts_with("JetMo") => {}
        (None, _) if reader.value("model_type").is_some() => {}
        (None, _) => reader.problem("model_type", "is missing, expected \"jetmoe\""),
    }
    let Some(name) = name else { return Architecture::CausalLm };
    if name.ends_with("ForSequenceClassification") {
        Architecture::SequenceClassification
    } else if name.ends_with("ForCausalLM") || name.ends_with("LMHeadModel") {
        Architecture::CausalLm
    } else if name.ends_with("JetMoeModel") || name.ends_with("JetMoEModel") {
        Architecture::Base
    } else {
        reader.note("architectures", format_args!("{name:?} names no task; read as a language model"));
        Architecture::CausalLm
    }
}
