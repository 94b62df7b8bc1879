//! Odd checkpoints: what transformers loads, the reference loads with the same logits, and what transformers refuses or
//! fills with random numbers is refused. `tests/fixtures/odd-checkpoints/make_odd_checkpoints.py` describes the cases.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use jetmoe_checkpoint::Checkpoint;
use jetmoe_reference::{Cache, Inputs, Reference};
use jetmoe_testing::{CheckpointDraft, DraftTensor, fixtures};
use safetensors::Dtype;
use serde_json::{Map, Value, json};

/// Loaded here and not in transformers 5.23, or with random numbers there.
const ONLY_HERE: &[(&str, &str)] = &[
    ("prefix_orig_mod", "the prefix of torch.compile is taken off; transformers initializes every weight"),
    ("prefix_module", "the prefix of data parallelism is taken off; transformers initializes every weight"),
    ("prefix_peft", "the prefix of PEFT is taken off; transformers initializes every weight"),
    ("tie_null_with_another_head", "null counts as absent"),
    ("rms_norm_eps_null", "null counts as absent"),
    ("rms_norm_eps_as_an_integer", "an integer is a number"),
    ("pad_far_below_zero", "every negative id is none"),
    ("pad_as_a_list", "a list of one id is an id"),
    ("shards_without_metadata", "nothing reads the metadata"),
    ("a_byte_order_mark", "some editors write it, and it has no other meaning"),
];

/// Loaded in transformers 5.23 and refused here.
const ONLY_THERE: &[(&str, &str)] = &[
    ("activation_quick_gelu", "not supported, refused by name"),
    ("rope_dynamic", "not supported, refused by name"),
    ("one_tensor_of_int64", "integers without scales are no weights"),
    ("one_tensor_of_int8", "integers without scales are no weights"),
    ("one_tensor_of_bool", "integers without scales are no weights"),
    ("an_index_with_the_wrong_file", "index and shards are of two checkpoints"),
];

fn folder() -> PathBuf {
    fixtures::folder().join("odd-checkpoints")
}

fn merge(target: &mut Map<String, Value>, edits: &Value) {
    for (key, value) in edits.as_object().into_iter().flatten() {
        if value == "(delete)" {
            target.shift_remove(key);
        } else {
            target.insert(key.clone(), value.clone());
        }
    }
}

fn stored_type(name: &Value) -> Dtype {
    serde_json::from_value(name.clone()).unwrap()
}

fn edit(draft: &mut CheckpointDraft, operation: &Value) {
    let text = |key: &str| operation[key].as_str().map(str::to_owned);
    let tensors = &mut draft.tensors;
    if let Some(name) = text("add") {
        let shape: Vec<usize> = serde_json::from_value(operation["shape"].clone()).unwrap();
        let number = |index: usize| ((index * 7 + 3) % 11) as f64 - 5.0;
        let values = (0..shape.iter().product()).map(|index| (number(index) / 10.0) as f32).collect();
        tensors.insert(name, DraftTensor { dtype: stored_type(&operation["dtype"]), shape, values });
    } else if let Some(name) = text("remove") {
        tensors.remove(&name).unwrap();
    } else if let Some(name) = text("copy") {
        tensors.insert(text("to").unwrap(), tensors[&name].clone());
    } else if let Some(name) = text("rename") {
        let tensor = tensors.remove(&name).unwrap();
        tensors.insert(text("to").unwrap(), tensor);
    } else if let Some(prefix) = text("prefix") {
        *tensors = std::mem::take(tensors)
            .into_iter()
            .map(|(name, tensor)| (prefix.clone() + &name, tensor))
            .collect();
    } else if let Some(name) = text("dtype") {
        tensors.get_mut(&name).unwrap().dtype = stored_type(&operation["to"]);
    } else if let Some(name) = text("set") {
        let index = operation["index"].as_u64().unwrap() as usize;
        tensors.get_mut(&name).unwrap().values[index] = text("value").unwrap().parse().unwrap();
    } else {
        panic!("{operation} is no edit");
    }
}

/// Writes the checkpoint of a case.
fn write(case: &Value, folder: &Path) {
    let mut draft = CheckpointDraft::read(&self::folder().join("base"));
    merge(&mut draft.config, &case["config"]);
    for operation in case["tensors"].as_array().into_iter().flatten() {
        edit(&mut draft, operation);
    }
    match case["shards"].as_array() {
        None => draft.write_into(folder),
        Some(files) => {
            let file_of = |index: usize| files[index % files.len()].as_str().unwrap();
            let mut weight_map = Map::new();
            for (index, name) in draft.tensors.keys().enumerate() {
                weight_map.insert(name.clone(), json!(file_of(index)));
            }
            for (shard, file) in files.iter().enumerate() {
                let mut part = draft.clone();
                let mut index = 0;
                part.tensors.retain(|_, _| {
                    index += 1;
                    (index - 1) % files.len() == shard
                });
                part.write_weights(&folder.join(file.as_str().unwrap()));
            }
            merge(&mut weight_map, &case["weight_map"]);
            let mut index = Map::from_iter([
                ("metadata".to_owned(), json!({})),
                ("weight_map".to_owned(), json!(weight_map)),
            ]);
            merge(&mut index, &case["index"]);
            fs::write(folder.join("model.safetensors.index.json"), Value::Object(index).to_string()).unwrap();
        }
    }
    let mut text = format!("{:#}\n", Value::Object(draft.config));
    for replacement in case["text"].as_array().into_iter().flatten() {
        let [old, new] = [0, 1].map(|index| replacement[index].as_str().unwrap());
        assert!(text.contains(old), "{}: {old:?} is not in {text}", case["name"]);
        text = text.replace(old, new);
    }
    fs::write(folder.join("config.json"), text).unwrap();
    for (name, content) in case["files"].as_object().into_iter().flatten() {
        let content = content.as_str().unwrap();
        match name.strip_prefix("move:") {
            Some(from) => fs::rename(folder.join(from), folder.join(content)).unwrap(),
            None => fs::write(folder.join(name), content).unwrap(),
        }
    }
}

/// The logits of the last token, or of the classes.
fn logits(folder: &Path, task: &str, ids: &[i64]) -> Result<Vec<f32>, String> {
    let checkpoint = Checkpoint::open(folder).map_err(|error| error.to_string())?;
    checkpoint.check_finite().map_err(|error| error.to_string())?;
    let reference = Reference::load(&checkpoint).map_err(|error| error.to_string())?;
    let inputs = Inputs {
        input_ids: ids,
        attention_mask: &vec![1; ids.len()],
        position_ids: &(0..ids.len() as i64).collect::<Vec<_>>(),
        batch_size: 1,
        sequence_length: ids.len(),
    };
    let outputs = reference.forward(&inputs, &mut Cache::new()).map_err(|error| error.to_string())?;
    let logits = match task {
        "causal-lm" => reference.logits(&outputs.last_hidden_state),
        _ => reference.class_logits(&outputs.last_hidden_state, ids),
    };
    let logits = logits.map_err(|error| error.to_string())?;
    let width = *logits.dims().last().unwrap();
    let all: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
    Ok(all[all.len() - width..].to_vec())
}

/// The logits of transformers; why there are none otherwise.
fn expected(result: &Value) -> Result<Vec<f32>, String> {
    if let Some(error) = result["refused"].as_str() {
        return Err(format!("transformers raises {error}"));
    }
    match result["new"].as_array().unwrap().as_slice() {
        [] => serde_json::from_value(result["logits"].clone()).map_err(|_| "the logits are NaN".to_owned()),
        new => Err(format!("transformers initializes {new:?}")),
    }
}

fn reason<'a>(list: &'a [(&str, &'a str)], name: &str) -> Option<&'a str> {
    list.iter().find(|(listed, _)| *listed == name).map(|(_, reason)| *reason)
}

/// Why a case differs, unless it is listed.
fn difference(case: &Value, ids: &[i64]) -> Option<String> {
    let temporary = tempfile::tempdir().unwrap();
    write(case, temporary.path());
    let name = case["name"].as_str().unwrap();
    let ours = logits(temporary.path(), case["task"].as_str().unwrap(), ids);
    let lines = ours.as_ref().err().map_or(0, |message| message.lines().count());
    assert!(lines <= 23, "{name}: a message of {lines} lines");
    let (here, there) = (reason(ONLY_HERE, name), reason(ONLY_THERE, name));
    match (ours, expected(&case["result"])) {
        (Err(message), Ok(_)) if there.is_none() => Some(format!("{name} is refused here: {message}")),
        (Ok(_), Err(reason)) if here.is_none() => Some(format!("{name} loads here: {reason}")),
        (Err(_), Ok(_)) | (Ok(_), Err(_)) => None,
        _ if here.or(there).is_some() => Some(format!("{name} is listed as a difference and is none")),
        (Err(_), Err(_)) => None,
        (Ok(ours), Ok(theirs)) => {
            let scale = theirs.iter().fold(1.0_f32, |scale, logit| scale.max(logit.abs()));
            let close = |(ours, theirs): (&f32, &f32)| (ours - theirs).abs() <= 1e-5 * scale;
            let same = ours.len() == theirs.len() && ours.iter().zip(&theirs).all(close);
            (!same).then(|| format!("{name} has the logits {ours:?}, expected {theirs:?}"))
        }
    }
}

#[test]
fn every_case_is_loaded_or_refused_as_in_transformers_or_listed() {
    let table: Value = serde_json::from_slice(&fs::read(folder().join("cases.json")).unwrap()).unwrap();
    let ids: Vec<i64> = serde_json::from_value(table["ids"].clone()).unwrap();
    let cases = table["cases"].as_array().unwrap();
    assert!(cases.len() >= 100, "{} cases", cases.len());
    let differences: Vec<String> = cases.iter().filter_map(|case| difference(case, &ids)).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let names: Vec<&str> = cases.iter().filter_map(|case| case["name"].as_str()).collect();
    for (listed, _) in ONLY_HERE.iter().chain(ONLY_THERE) {
        assert!(names.contains(listed), "{listed} is no case");
    }
}
