//! The error type of this crate.

use std::fmt;
use std::path::PathBuf;

use crate::Dtype;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One thing that is wrong with a `config.json` or a `generation_config.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The key, dotted where it is nested.
    pub key: String,
    /// What is wrong with it, and what is expected.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Why a checkpoint could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The argument names neither a folder nor a hub id.
    #[error("no such folder: {}\n  give a folder with config.json and *.safetensors, or a hub id such as jetmoe/jetmoe-8b", path.display())]
    NotFound {
        /// The requested value.
        path: PathBuf,
    },
    /// A file of the checkpoint is missing.
    #[error("{} is missing in {}\n  {advice}", file, folder.display())]
    MissingFile {
        /// Name of the file.
        file: String,
        /// The checkpoint's folder.
        folder: PathBuf,
        /// How to fix it.
        advice: String,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system reported.
        source: std::io::Error,
    },
    /// A copy does not fit on the disk.
    #[error("{} has {available} bytes left, and a copy of the weights takes {needed}\n  choose another folder, or free space", folder.display())]
    DiskSpace {
        /// The folder for the copy.
        folder: PathBuf,
        /// Bytes of the copy.
        needed: u64,
        /// Bytes that are left.
        available: u64,
    },
    /// A file that is kept in memory is larger than any of its name.
    #[error("{} holds {size} bytes, and a file of this name is read up to {limit} bytes\n  it is damaged, or not what its name says: download or copy it again", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// Most bytes that are read.
        limit: u64,
    },
    /// A JSON file cannot be parsed.
    #[error("{} is not valid: {source}\n  correct it, or download or copy it again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser reported, with line and column.
        source: serde_json::Error,
    },
    /// The configuration is not valid; every problem is listed.
    #[error("{} is not a valid JetMoE configuration:{}", path.display(), list(problems))]
    Config {
        /// The file.
        path: PathBuf,
        /// Every problem.
        problems: Vec<ConfigProblem>,
    },
    /// Settings for generation cannot be followed; every problem is listed.
    #[error("{} holds settings for generation that cannot be followed:{}\n  correct them, or remove them from the file", path.display(), list(problems))]
    GenerationConfig {
        /// The file.
        path: PathBuf,
        /// Every problem.
        problems: Vec<ConfigProblem>,
    },
    /// The weights are quantized by a method that is not supported.
    #[error("{} holds quantized weights ({method}), as {evidence} says: {reason}\n  give the checkpoint that it was made from, and choose a precision for the export; or dequantize it in transformers and write it with save_pretrained", path.display())]
    Quantized {
        /// The file or folder.
        path: PathBuf,
        /// What says so, such as `its quantization_config`.
        evidence: String,
        /// The method, as far as it is named.
        method: String,
        /// Why they cannot be taken over.
        reason: String,
    },
    /// A tensor of quantized weights cannot be taken over.
    #[error("{}, {tensor} {problem}\n  give the checkpoint that was quantized, and choose a precision for the export", folder.display())]
    QuantizedTensor {
        /// The checkpoint's folder.
        folder: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with it, as in `is missing`.
        problem: String,
    },
    /// The folder holds an adapter of PEFT.
    #[error("{} says that this is an adapter{} for {}, not a model\n  merge it: load both with PEFT, then merge_and_unload().save_pretrained(FOLDER), and give FOLDER", path.display(), kind.as_deref().map(|kind| format!(" ({kind})")).unwrap_or_default(), base.as_deref().unwrap_or("another model"))]
    Adapter {
        /// The adapter's configuration.
        path: PathBuf,
        /// Its kind, such as `LORA`.
        kind: Option<String>,
        /// The model that it is for.
        base: Option<String>,
    },
    /// The weights hold an adapter that was not merged into them.
    #[error("{} holds an adapter beside the weights, in {tensor} for example\n  merge it: merge_and_unload() in PEFT, then save_pretrained(FOLDER), and give FOLDER", folder.display())]
    UnmergedAdapter {
        /// The checkpoint's folder.
        folder: PathBuf,
        /// The first tensor of the adapter.
        tensor: String,
    },
    /// A safetensors file is damaged.
    #[error("{} is not a complete safetensors file: {source}\n  it may be truncated: download or copy it again", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The error that the parser reported.
        source: safetensors::SafeTensorError,
    },
    /// A safetensors file is the pointer that a clone without Git LFS leaves.
    #[error("{} is a Git LFS pointer, not the file itself\n  download the file with `git lfs pull`", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// The index names a file that does not exist.
    #[error("{} lists {tensor} in {file}, which does not exist\n  download the missing shard into the same folder", index.display())]
    MissingShard {
        /// The index file.
        index: PathBuf,
        /// The first tensor that is affected.
        tensor: String,
        /// The missing file.
        file: String,
    },
    /// The index names a file outside its folder.
    #[error("{} lists {tensor} in {file:?}, which is outside of its folder\n  put the file into the folder of the index, and name it there", index.display())]
    ShardOutside {
        /// The index file.
        index: PathBuf,
        /// The first tensor that is affected.
        tensor: String,
        /// The file as written in the index.
        file: String,
    },
    /// The index lists a tensor in a file that does not have it.
    #[error("{} lists {tensor} in {file}, but that file does not have it\n  index and shards do not belong together: download or copy them again", index.display())]
    MisplacedTensor {
        /// The index file.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// The file it is listed in.
        file: String,
    },
    /// Tensors that the configuration requires are missing or have another shape or type.
    #[error("the weights in {} do not match its config.json:{}\n  both must be from the same model: download or copy them again", folder.display(), list(problems))]
    Weights {
        /// The checkpoint's folder.
        folder: PathBuf,
        /// Every mismatch.
        problems: Vec<WeightProblem>,
    },
    /// A weight is infinite or NaN.
    #[error("{}, {tensor}: the weight at {place:?} is {value}, so the model computes NaN\n  the file is damaged, or the training diverged: use another checkpoint", folder.display())]
    NotFinite {
        /// The checkpoint's folder.
        folder: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its index in the tensor.
        place: Vec<usize>,
        /// Its value.
        value: f32,
    },
    /// A text is not a digest.
    #[error("{text:?} is not a SHA-256 digest of 64 hexadecimal digits")]
    InvalidDigest {
        /// The text.
        text: String,
    },
}

/// One tensor that does not match the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WeightProblem {
    /// The tensor does not exist.
    Missing {
        /// Its name.
        tensor: String,
        /// The expected shape.
        expected: Vec<usize>,
    },
    /// The tensor has another shape.
    Shape {
        /// Its name.
        tensor: String,
        /// The shape by the configuration.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// The tensor has an unsupported element type.
    Dtype {
        /// Its name.
        tensor: String,
        /// The type in the file.
        found: String,
    },
}

impl fmt::Display for WeightProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WeightProblem::Missing { tensor, expected } => {
                write!(f, "{tensor} is missing (expected {expected:?})")
            }
            WeightProblem::Shape { tensor, expected, found } => {
                write!(f, "{tensor} has shape {found:?}, expected {expected:?}")
            }
            WeightProblem::Dtype { tensor, found } => write!(
                f,
                "{tensor} has elements of type {found}, expected {}, {}, {} or {}",
                Dtype::F32,
                Dtype::F16,
                Dtype::Bf16,
                Dtype::F64
            ),
        }
    }
}

/// One problem per line, indented; a long list is truncated, with a count.
fn list<T: fmt::Display>(problems: &[T]) -> String {
    const SHOWN: usize = 20;
    let mut text: String = problems.iter().take(SHOWN).map(|problem| format!("\n  - {problem}")).collect();
    if problems.len() > SHOWN {
        text.push_str(&format!("\n  - … and {} more", problems.len() - SHOWN));
    }
    text
}
