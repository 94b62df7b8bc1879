use std::fmt;
use std::path::PathBuf;

use crate::Dtype;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One thing that is wrong with a `config.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The key, dotted where it is nested.
    pub key: String,
    /// What is wrong with it, and what would be right.
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
        /// What was asked for.
        path: PathBuf,
    },
    /// A file of the checkpoint is missing.
    #[error("{} is missing in {}\n  {advice}", file, folder.display())]
    MissingFile {
        /// Name of the file.
        file: String,
        /// The checkpoint's folder.
        folder: PathBuf,
        /// What to do.
        advice: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not the JSON it should be.
    #[error("{} is not valid: {source}\n  correct it, or download or copy it again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        source: serde_json::Error,
    },
    /// The configuration describes no model that can be built; every problem is listed.
    #[error("{} describes no JetMoE model that can be built:{}", path.display(), list(problems))]
    Config {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        problems: Vec<ConfigProblem>,
    },
    /// A safetensors file is damaged.
    #[error("{} is no whole safetensors file: {message}\n  it may be truncated: download or copy it again", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The index names a file that does not exist.
    #[error("{} says that {tensor} is in {file}, which does not exist\n  download the missing shard into the same folder", index.display())]
    MissingShard {
        /// The index file.
        index: PathBuf,
        /// The first tensor that is affected.
        tensor: String,
        /// The missing file.
        file: String,
    },
    /// The index names a file that does not lie beside it.
    #[error("{} says that {tensor} is in {file:?}, which is no file beside it\n  the index is damaged: download or copy it again", index.display())]
    ShardOutside {
        /// The index file.
        index: PathBuf,
        /// The first tensor that is affected.
        tensor: String,
        /// What the index says.
        file: String,
    },
    /// The index names a tensor that its file does not hold.
    #[error("{} says that {tensor} is in {file}, but that file does not hold it\n  index and shards are of different exports: download or copy them again", index.display())]
    MisplacedTensor {
        /// The index file.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// The file that should hold it.
        file: String,
    },
    /// Tensors that the configuration calls for are missing or have another shape or type.
    #[error("the weights in {} do not fit its config.json:{}\n  both must be of the same model: download or copy them again", folder.display(), list(problems))]
    Weights {
        /// The checkpoint's folder.
        folder: PathBuf,
        /// Everything that does not fit.
        problems: Vec<WeightProblem>,
    },
    /// A model could not be fetched from the hub.
    #[error("cannot fetch {id} from the hub: {message}\n  {advice}")]
    Hub {
        /// `owner/name`.
        id: String,
        /// What went wrong.
        message: String,
        /// What to do.
        advice: String,
    },
}

/// One tensor that does not fit the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WeightProblem {
    /// The tensor does not exist.
    Missing {
        /// Its name.
        tensor: String,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// The tensor has another shape.
    Shape {
        /// Its name.
        tensor: String,
        /// The shape that follows from the configuration.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// The tensor has an element type that no JetMoE weight has.
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
                "{tensor} holds {found} elements, expected {}, {} or {}",
                Dtype::F32,
                Dtype::F16,
                Dtype::Bf16
            ),
        }
    }
}

/// One problem a line, indented; long lists are cut with a count.
fn list<T: fmt::Display>(problems: &[T]) -> String {
    const SHOWN: usize = 20;
    let mut text: String = problems.iter().take(SHOWN).map(|problem| format!("\n  - {problem}")).collect();
    if problems.len() > SHOWN {
        text.push_str(&format!("\n  - … and {} more", problems.len() - SHOWN));
    }
    text
}
