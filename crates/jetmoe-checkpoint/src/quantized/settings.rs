//! `quantization_config`: which layouts are taken over, and why others are not.

use serde_json::Value;

use super::{Layout, Quantization};

/// Why quantized weights cannot be taken over, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unsupported(String);

fn unsupported<T>(reason: impl Into<String>) -> Result<T, Unsupported> {
    Err(Unsupported(reason.into()))
}

/// Group sizes that a 4-bit graph can have.
const GROUP_SIZES: [u64; 4] = [16, 32, 64, 128];

/// Reads a `quantization_config`.
///
/// # Errors
/// Why the weights cannot be taken over, in words.
pub(crate) fn read_settings(config: &Value) -> Result<Quantization, Unsupported> {
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    match text("quant_method") {
        Some("gptq") => gptq(config),
        Some("awq") => awq(config),
        Some("compressed-tensors") => compressed_tensors(config),
        Some(_) | None => unsupported("this method is not supported"),
    }
}

fn gptq(config: &Value) -> Result<Quantization, Unsupported> {
    let flag = |key: &str| config.get(key).and_then(Value::as_bool).unwrap_or(false);
    bits(config.get("bits"))?;
    if flag("desc_act") {
        return unsupported(
            "desc_act sorts the inputs of a product, which the groups of a graph cannot express",
        );
    }
    let zero_point_offset = match config.get("checkpoint_format").and_then(Value::as_str).unwrap_or("gptq") {
        "gptq" => 1,
        "gptq_v2" => 0,
        other => return unsupported(format!("the checkpoint_format {other:?} is not supported")),
    };
    // auto-gptq's default
    let is_symmetric = config.get("sym").and_then(Value::as_bool).unwrap_or(true);
    let group_size = group_size(config.get("group_size"))?;
    Ok(Quantization { layout: Layout::Gptq { zero_point_offset }, group_size, zero_points: !is_symmetric })
}

fn awq(config: &Value) -> Result<Quantization, Unsupported> {
    bits(config.get("bits").or_else(|| config.get("w_bit")))?;
    let version = config.get("version").and_then(Value::as_str).unwrap_or("gemm").to_lowercase();
    if version != "gemm" {
        return unsupported(format!("the version {version:?} is not supported, only gemm is"));
    }
    let group_size = group_size(config.get("group_size").or_else(|| config.get("q_group_size")))?;
    Ok(Quantization { layout: Layout::Awq, group_size, zero_points: true })
}

fn compressed_tensors(config: &Value) -> Result<Quantization, Unsupported> {
    let format = config.get("format").and_then(Value::as_str).unwrap_or("unnamed");
    if format != "pack-quantized" {
        return unsupported(format!("the format {format:?} is not supported, only pack-quantized is"));
    }
    let groups: Vec<&Value> = config
        .get("config_groups")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|groups| groups.values())
        .collect();
    let [group] = groups.as_slice() else {
        return unsupported(format!("it has {} config_groups, expected one", groups.len()));
    };
    for quantized in ["input_activations", "output_activations"] {
        if group.get(quantized).is_some_and(|value| !value.is_null()) {
            return unsupported(format!("{quantized} are quantized too"));
        }
    }
    let weights = group.get("weights").unwrap_or(&Value::Null);
    bits(weights.get("num_bits"))?;
    if weights.get("type").and_then(Value::as_str).is_some_and(|kind| kind != "int") {
        return unsupported("the weights are no integers");
    }
    if weights.get("symmetric").and_then(Value::as_bool) == Some(false) {
        return unsupported("the groups have zero points");
    }
    if weights
        .get("actorder")
        .is_some_and(|order| !order.is_null() && *order != "weight" && *order != "static")
    {
        return unsupported(
            "actorder sorts the inputs of a product, which the groups of a graph cannot express",
        );
    }
    if weights.get("strategy").and_then(Value::as_str) != Some("group") {
        return unsupported("the weights have no groups (strategy)");
    }
    let group_size = group_size(weights.get("group_size"))?;
    Ok(Quantization { layout: Layout::CompressedTensors, group_size, zero_points: false })
}

fn bits(value: Option<&Value>) -> Result<(), Unsupported> {
    match value.and_then(Value::as_u64) {
        Some(4) => Ok(()),
        Some(bits) => unsupported(format!("{bits} bits are not supported, only 4 are")),
        None => unsupported("the number of bits is missing"),
    }
}

fn group_size(value: Option<&Value>) -> Result<usize, Unsupported> {
    match value.and_then(Value::as_i64) {
        Some(size) if GROUP_SIZES.contains(&(size as u64)) => Ok(size as usize),
        Some(size) => {
            unsupported(format!("groups of {size} weights are not supported, only of 16, 32, 64 or 128"))
        }
        None => unsupported("the group size is missing"),
    }
}
