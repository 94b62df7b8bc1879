//! Checkpoints as other tools write them: whether one loads, its token ids and its greedy continuations are those of
//! transformers. `tests/fixtures/odd-checkpoints/make_combinations.py` says what the cases are, and recorded what transformers
//! does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use half::bf16;
use jetmoe::checkpoint::Checkpoint;
use jetmoe::export::{ExportOptions, export};
use jetmoe::rt::{ChatMessage, GenerationOptions, Generator, LoadOptions, Model, Prompt, Request, Sampling};
use jetmoe_testing::fixtures;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::fixtures::temporary_folder;
use crate::subject::has_device;
use crate::suite::Suite;

/// Adds a test for every case. They compute on the CPU, so that a suite for a device has none.
pub(crate) fn add_tests(suite: &mut Suite) {
    if has_device() {
        return;
    }
    for (index, case) in RECORDED.cases.iter().enumerate() {
        suite.add_general(format!("odd::{index:03} {}", case.kinds.join(", ")), || check(case));
    }
}

static RECORDED: LazyLock<Recorded> = LazyLock::new(|| {
    let path = fixtures::folder().join("odd-checkpoints/combinations.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
});

#[derive(Deserialize)]
struct Recorded {
    text: String,
    conversation: Vec<Message>,
    /// What `Edit::Write` refers to.
    texts: Vec<String>,
    cases: Vec<OddCase>,
}

#[derive(Deserialize)]
struct Message {
    content: String,
}

#[derive(Deserialize)]
struct OddCase {
    kinds: Vec<String>,
    edits: Vec<Edit>,
    transformers: Outcome,
}

#[derive(Deserialize)]
#[serde(tag = "edit", rename_all = "lowercase")]
enum Edit {
    Set { file: String, key: String, value: Value },
    Delete { file: String, key: String },
    Write { file: String, text: usize },
    Remove { file: String },
    Prefix { prefix: String },
    Cast { tensor: String, dtype: String },
    Rotate { tensor: String, from: String, rows: usize },
    Drop { tensor: String },
    Shards { count: usize, folder: String },
    Files { tensors: BTreeMap<String, String> },
}

/// What a program does with a checkpoint.
#[derive(Deserialize)]
struct Outcome {
    /// Why it does not load.
    refused: Option<String>,
    /// Weights that transformers fills with random numbers.
    #[serde(default)]
    missing_tensors: Vec<String>,
    text: Option<Continuation>,
    chat: Option<Continuation>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
struct Continuation {
    /// Token ids of the prompt.
    ids: Option<Vec<u32>>,
    tokens: Option<Vec<u32>>,
    /// Why there is no prompt.
    refused: Option<String>,
    /// Why nothing was generated.
    generation_refused: Option<String>,
}

/// Kinds of edits with which a checkpoint is refused here on purpose, and why.
const REFUSED_HERE: &[(&str, &str)] = &[
    ("a missing tensor", "transformers fills it with random numbers, and such a model is of no use"),
    ("untied without a head", "transformers fills it with random numbers, and such a model is of no use"),
];

const PREFIX: &str =
    "every tensor has it, so what it means is clear; transformers fills the whole model with random numbers";

/// Kinds of edits with which a checkpoint loads here on purpose, and why.
const LOADED_HERE: &[(&str, &str)] =
    &[("prefix _orig_mod.", PREFIX), ("prefix module.", PREFIX), ("prefix base_model.model.", PREFIX)];

/// Kinds of edits with which a text is generated here where transformers fails, and why.
const GENERATED_HERE: &[(&str, &str)] = &[(
    "decay",
    "the penalty changes the scores of end tokens, and without one transformers computes with None",
)];

impl OddCase {
    fn is_in(&self, differences: &[(&str, &str)]) -> bool {
        differences.iter().any(|(kind, _)| self.kinds.iter().any(|own| own == kind))
    }
}

fn check(case: &OddCase) {
    let folder = temporary_folder();
    write_checkpoint(folder.path(), &case.edits);
    let transformers = &case.transformers;
    let is_refused = transformers.refused.is_some() || !transformers.missing_tensors.is_empty();
    match load(folder.path()) {
        Ok((generator, _artifact)) => {
            if is_refused {
                assert!(
                    case.is_in(LOADED_HERE),
                    "loads, and transformers refuses: {:?}",
                    transformers.refused
                );
                return;
            }
            assert!(!case.is_in(REFUSED_HERE) && !case.is_in(LOADED_HERE), "there is no difference");
            let conversation =
                RECORDED.conversation.iter().map(|message| ChatMessage::user(&message.content));
            let conversation: Vec<ChatMessage> = conversation.collect();
            let prompts = [
                (RECORDED.text.as_str().into(), &transformers.text),
                (conversation.into(), &transformers.chat),
            ];
            for (prompt, expected) in prompts {
                check_continuation(case, &generator, prompt, expected.as_ref().unwrap());
            }
        }
        Err(error) => {
            assert!(transformers.refused.is_some() || case.is_in(REFUSED_HERE), "{error}");
            assert!(error.lines().count() <= 12, "too long: {error}");
        }
    }
}

fn check_continuation(case: &OddCase, generator: &Generator, prompt: Prompt, expected: &Continuation) {
    let found = generator.encode(prompt.clone());
    let Some(ids) = &expected.ids else {
        assert!(found.is_err(), "the prompt has ids, and transformers refuses it: {:?}", expected.refused);
        return;
    };
    assert_eq!(&found.unwrap(), ids, "token ids of {prompt:?}");
    let options = GenerationOptions::for_model(generator.model())
        .with_sampling(Sampling::Greedy)
        .with_max_new_tokens(16);
    let found = generator.run(Request::new(prompt.clone()).with_options(options));
    match &expected.tokens {
        Some(tokens) => assert_eq!(&found.unwrap().token_ids, tokens, "continuation of {prompt:?}"),
        None => {
            let is_known = found.is_err() || case.is_in(GENERATED_HERE);
            assert!(is_known, "it runs, and transformers fails: {:?}", expected.generation_refused);
        }
    }
}

/// Exports a checkpoint and loads the artifact.
fn load(folder: &Path) -> Result<(Generator, tempfile::TempDir), String> {
    let artifact = temporary_folder();
    let checkpoint = Checkpoint::open(folder).map_err(|error| error.to_string())?;
    let options = ExportOptions::new("a folder", artifact.path().join("artifact"));
    export(&checkpoint, &options).map_err(|error| error.to_string())?;
    let model = Model::load(&options.output, &LoadOptions::default().with_threads(1));
    let generator = model.and_then(|model| Generator::new(&model)).map_err(|error| error.to_string())?;
    Ok((generator, artifact))
}

const WEIGHTS: &str = "model.safetensors";

#[derive(Clone)]
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn write_checkpoint(folder: &Path, edits: &[Edit]) {
    let source = fixtures::checkpoint("jetmoe-mini");
    for name in [
        "config.json",
        "generation_config.json",
        "tokenizer_config.json",
        "tokenizer.json",
        "chat_template.jinja",
    ] {
        fs::copy(source.join(name), folder.join(name)).unwrap();
    }
    let changes_weights = |edit: &Edit| {
        !matches!(edit, Edit::Set { .. } | Edit::Delete { .. } | Edit::Write { .. } | Edit::Remove { .. })
    };
    let changes_weights = edits.iter().any(changes_weights);
    if !changes_weights {
        fs::copy(source.join(WEIGHTS), folder.join(WEIGHTS)).unwrap();
    }
    let mut tensors = if changes_weights { read_tensors(&source.join(WEIGHTS)) } else { BTreeMap::new() };
    for edit in edits {
        match edit {
            Edit::Set { file, key, value } => {
                edit_json(&folder.join(file), |values| drop(values.insert(key.clone(), value.clone())));
            }
            Edit::Delete { file, key } => edit_json(&folder.join(file), |values| drop(values.remove(key))),
            Edit::Write { file, text } => fs::write(folder.join(file), &RECORDED.texts[*text]).unwrap(),
            Edit::Remove { file } => fs::remove_file(folder.join(file)).unwrap_or_default(),
            Edit::Prefix { prefix } => {
                let named = std::mem::take(&mut tensors).into_iter();
                tensors = named.map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect();
            }
            Edit::Cast { tensor, dtype } => {
                for (name, stored) in &mut tensors {
                    if tensor == "*" || tensor == name {
                        *stored = cast(stored, dtype);
                    }
                }
            }
            Edit::Rotate { tensor, from, rows } => {
                let mut rotated = tensors[from].clone();
                let row = rotated.bytes.len() / rotated.shape[0];
                rotated.bytes.rotate_right(rows * row);
                tensors.insert(tensor.clone(), rotated);
            }
            Edit::Drop { tensor } => drop(tensors.remove(tensor)),
            Edit::Shards { count, folder: below } => {
                fs::create_dir_all(folder.join(below)).unwrap();
                write_files(folder, &tensors, &shards(&tensors, *count, below));
            }
            Edit::Files { tensors: files } => write_files(folder, &tensors, files),
        }
    }
    let is_split = |edit: &Edit| matches!(edit, Edit::Shards { .. } | Edit::Files { .. });
    if changes_weights && !edits.iter().any(is_split) {
        write_tensors(&folder.join(WEIGHTS), tensors.iter());
    }
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Map<String, Value>)) {
    let mut values =
        fs::read(path).map_or_else(|_| Map::new(), |bytes| serde_json::from_slice(&bytes).unwrap());
    edit(&mut values);
    fs::write(path, Value::Object(values).to_string()).unwrap();
}

fn read_tensors(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = fs::read(path).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = stored.iter().map(|(name, view)| {
        let tensor =
            Tensor { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() };
        (name.to_owned(), tensor)
    });
    tensors.collect()
}

/// The values in another type.
fn cast(tensor: &Tensor, dtype: &str) -> Tensor {
    let bytes = &tensor.bytes;
    let values: Vec<f64> = match tensor.dtype {
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f64()).collect(),
        Dtype::F32 => bytes.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        other => panic!("no case is stored in {other:?}"),
    };
    let (dtype, bytes) = match dtype {
        "BF16" => {
            (Dtype::BF16, values.iter().flat_map(|value| bf16::from_f64(*value).to_le_bytes()).collect())
        }
        "F32" => (Dtype::F32, values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect()),
        "F64" => (Dtype::F64, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        other => panic!("no case is stored in {other}"),
    };
    Tensor { dtype, shape: tensor.shape.clone(), bytes }
}

fn write_tensors<'a>(path: &Path, tensors: impl Iterator<Item = (&'a String, &'a Tensor)>) {
    let views = tensors.map(|(name, Tensor { dtype, shape, bytes })| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize_to_file(views, Some(metadata), path).unwrap();
}

/// The file of each tensor, in turn.
fn shards(tensors: &BTreeMap<String, Tensor>, count: usize, folder: &str) -> BTreeMap<String, String> {
    let file = |shard| format!("model-{:05}-of-{count:05}.safetensors", shard + 1);
    let file = |shard| if folder.is_empty() { file(shard) } else { format!("{folder}/{}", file(shard)) };
    tensors.keys().enumerate().map(|(index, name)| (name.clone(), file(index % count))).collect()
}

/// Writes these tensors, each into its file, and an index if there are several files.
fn write_files(folder: &Path, tensors: &BTreeMap<String, Tensor>, files: &BTreeMap<String, String>) {
    let names: BTreeSet<&String> = files.values().collect();
    for &name in &names {
        let part = tensors.iter().filter(|(tensor, _)| files.get(*tensor) == Some(name));
        write_tensors(&folder.join(name), part);
    }
    if !names.iter().all(|name| *name == WEIGHTS) {
        let index = json!({ "metadata": {}, "weight_map": files });
        fs::write(folder.join(format!("{WEIGHTS}.index.json")), index.to_string()).unwrap();
    }
}
