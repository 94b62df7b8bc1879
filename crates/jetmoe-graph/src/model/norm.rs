//! The norm of every layer, and the final one. After `JetMoeRMSNorm` of transformers' `modeling_jetmoe.py`.

use jetmoe_artifact::Profile;

use crate::builder::{Builder, Value};
use crate::{ElementType, Result};

/// RMSNorm, x / √(mean(x²) + ε) · weight, over the last axis (<https://arxiv.org/abs/1910.07467>).
///
/// Computed in float32 and multiplied by the weight in the type of `hidden`. In native graphs it is a custom operator; in others it
/// is written in the form that ONNX Runtime recognises and can fuse into one kernel.
pub(super) fn rms_norm(builder: &mut Builder, hidden: &Value, weight: &Value, epsilon: f64) -> Result<Value> {
    if builder.profile() == Profile::Native {
        return builder.rms_norm(hidden, weight, epsilon);
    }
    let element = hidden.element;
    let hidden = &builder.cast(hidden, ElementType::Float32);
    let two = builder.float(2.0);
    let epsilon = builder.float(epsilon as f32);
    let squares = builder.pow(hidden, &two)?; // [tokens, hidden]
    let mean = builder.mean_of_last(&squares)?; // [tokens, 1]
    let shifted = builder.add(&mean, &epsilon)?;
    let root = builder.sqrt(&shifted)?; // [tokens, 1]
    let normed = builder.div(hidden, &root)?; // [tokens, hidden]
    let normed = builder.cast(&normed, element);
    builder.mul(weight, &normed)
}
