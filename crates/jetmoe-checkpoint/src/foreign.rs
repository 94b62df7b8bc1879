//! What looks like a checkpoint and is something else: quantized weights, adapters, pickles.

use std::path::Path;

use serde_json::{Map, Value};

use crate::quantized::read_settings;
use crate::{Error, Quantization, Result, Tensors, names, read_json};

/// Refuses a folder with an adapter of PEFT, which changes the weights of a model or needs another one.
///
/// # Errors
/// [`Error::Adapter`], with the model that the adapter is for.
pub(crate) fn refuse_adapter(folder: &Path) -> Result<()> {
    let path = folder.join(names::ADAPTER_CONFIG);
    if !path.is_file() {
        return Ok(());
    }
    let config: Map<String, Value> = read_json(&path)?;
    let text = |key: &str| config.get(key).and_then(Value::as_str).map(str::to_owned);
    Err(Error::Adapter { kind: text("peft_type"), base: text("base_model_name_or_path"), path })
}

/// How a configuration says that the weights are quantized; `None` if they are not.
///
/// # Errors
/// [`Error::Quantized`], with the method and the reason, if the weights cannot be taken over.
pub(crate) fn read_quantization(path: &Path, config: &Value) -> Result<Option<Quantization>> {
    let keys = ["quantization_config", "compression_config"];
    let Some((key, found)) = keys
        .iter()
        .find_map(|key| config.get(key).filter(|value| !value.is_null()).map(|value| (*key, value)))
    else {
        return Ok(None);
    };
    read_settings(found).map(Some).map_err(|reason| Error::Quantized {
        path: path.to_owned(),
        evidence: format!("its {key}"),
        method: method(found),
        reason: reason.to_string(),
    })
}

/// The method of a `quantization_config`, in words.
fn method(config: &Value) -> String {
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    let flag = |key: &str| config.get(key).and_then(Value::as_bool) == Some(true);
    let name = text("quant_method").unwrap_or("an unnamed method").to_owned();
    let details = if flag("load_in_4bit") {
        Some("4 bits".to_owned())
    } else if flag("load_in_8bit") {
        Some("8 bits".to_owned())
    } else if let Some(bits) = config.get("bits").or_else(|| config.get("w_bit")).and_then(Value::as_u64) {
        Some(format!("{bits} bits"))
    } else {
        text("format").or_else(|| text("fmt")).map(str::to_owned)
    };
    match details {
        Some(details) => format!("{name}, {details}"),
        None => name,
    }
}

/// Endings of the tensors that quantized checkpoints have beside their codes, and the tools that write them.
const QUANTIZED: &[(&str, &str)] = &[
    (".qweight", "gptq or awq"),
    (".qzeros", "gptq or awq"),
    (".g_idx", "gptq"),
    (".weight_packed", "compressed-tensors"),
    (".weight_scale", "compressed-tensors or fp8"),
    (".weight_zero_point", "compressed-tensors"),
    (".weight_scale_inv", "fp8"),
    (".weight_scale_2", "modelopt"),
    (".weight.absmax", "bitsandbytes, 4 bits"),
    (".weight.quant_map", "bitsandbytes, 4 bits"),
    (".SCB", "bitsandbytes, 8 bits"),
    (".weight_format", "bitsandbytes, 8 bits"),
    ("_blocks", "mxfp4"),
    ("_scales", "mxfp4"),
];

/// Refuses tensors that only quantized checkpoints and unmerged adapters have. Without this they would go unused, and the
/// codes would count as weights.
///
/// # Errors
/// [`Error::Quantized`] or [`Error::UnmergedAdapter`], with the first such tensor.
pub(crate) fn refuse_foreign_tensors(folder: &Path, tensors: &Tensors) -> Result<()> {
    for name in tensors.names().filter(|name| !tensors.is_packed(name)) {
        if [".lora_A.", ".lora_B.", ".lora_embedding_A", ".base_layer."]
            .iter()
            .any(|part| name.contains(part))
        {
            return Err(Error::UnmergedAdapter { folder: folder.to_owned(), tensor: name.to_owned() });
        }
        if let Some((_, method)) = QUANTIZED.iter().find(|(ending, _)| name.ends_with(ending)) {
            return Err(Error::Quantized {
                path: folder.to_owned(),
                evidence: format!("the tensor {name}"),
                method: (*method).to_owned(),
                reason: "nothing says how they are stored".to_owned(),
            });
        }
    }
    Ok(())
}

/// What to do about a folder without safetensors.
pub(crate) fn advice_without_weights(folder: &Path) -> String {
    const OTHERS: [(&str, &str); 6] = [
        (".bin", "a pickle"),
        (".pt", "a pickle"),
        (".pth", "a pickle"),
        (".ckpt", "a pickle"),
        (".gguf", "GGUF"),
        (".h5", "HDF5"),
    ];
    let mut files: Vec<String> = folder
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with("training_args") && !name.starts_with("optimizer"))
        .collect();
    files.sort();
    let needed =
        format!("weights must be safetensors: {}, or shards with {}", names::WEIGHTS, names::WEIGHTS_INDEX);
    let found = files.iter().find_map(|file| {
        let kind = OTHERS.iter().find(|(ending, _)| file.ends_with(ending))?;
        Some((file, kind.1))
    });
    match found {
        Some((file, kind)) => format!(
            "{needed}; {file} is {kind}: load it in transformers and write it with save_pretrained, which writes safetensors"
        ),
        None => needed,
    }
}
