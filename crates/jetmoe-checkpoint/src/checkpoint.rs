use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::names;
use crate::weights::weights_of;
use crate::{Digest, Error, GenerationConfig, ModelConfig, Result, TensorView, Tensors, WeightProblem};

/// An opened checkpoint folder: configuration and mapped weights that fit each other.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    config: ModelConfig,
    tensors: Tensors,
}

impl Checkpoint {
    /// Opens a folder, validates its configuration and checks every tensor's presence, shape and type.
    ///
    /// # Errors
    /// The first file that cannot be used, or all problems of the configuration or of the weights at once.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        if !folder.is_dir() {
            return Err(Error::NotFound { path: folder.to_owned() });
        }
        let config_file = folder.join(names::CONFIG);
        if !config_file.is_file() {
            return Err(Error::MissingFile {
                file: names::CONFIG.to_owned(),
                folder: folder.to_owned(),
                advice: "a checkpoint is a folder as transformers' save_pretrained writes it".to_owned(),
            });
        }
        let config = ModelConfig::read(&config_file)?;
        let mut tensors = Tensors::open(folder)?;
        // JetMoeModel.save_pretrained writes the names without the prefix that the models with a head have
        if !tensors.contains(names::EMBEDDING)
            && names::EMBEDDING.strip_prefix("model.").is_some_and(|bare| tensors.contains(bare))
        {
            tensors.rename(|name| format!("model.{name}"));
        }
        let checkpoint = Checkpoint { folder: folder.to_owned(), config, tensors };
        let expected = weights_of(&checkpoint.config);
        checkpoint.check_weights(&expected)?;
        checkpoint.warn_of_unused(&expected);
        Ok(checkpoint)
    }

    /// Where the checkpoint lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The validated configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The mapped weights.
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// One tensor that must have a certain shape.
    ///
    /// # Errors
    /// [`Error::Weights`] if it is missing or has another shape or type.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>> {
        self.check_weights(&[(name.to_owned(), shape.to_vec())])?;
        self.tensors.get(name).ok_or_else(|| Error::Weights {
            folder: self.folder.clone(),
            problems: vec![WeightProblem::Missing { tensor: name.to_owned(), expected: shape.to_vec() }],
        })
    }

    /// The generation defaults beside the weights; empty ones where the folder has none.
    ///
    /// # Errors
    /// A file that cannot be read or is not valid.
    pub fn generation_config(&self) -> Result<GenerationConfig> {
        GenerationConfig::open(&self.folder)
    }

    /// Digest of everything the graph depends on: the configuration and every tensor. It reads all weights;
    /// `progress` is told the number of bytes done since its last call.
    ///
    /// # Errors
    /// A configuration file that cannot be read any more.
    pub fn digest(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Digest> {
        Digest::of_checkpoint(self, progress)
    }

    /// Weights that the configuration has no place for are no error, as in transformers, but worth a word: a layer count
    /// that is too low would pass unnoticed otherwise.
    fn warn_of_unused(&self, expected: &[(String, Vec<usize>)]) {
        let expected: HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        let unused: Vec<&str> = self.tensors.names().filter(|name| !expected.contains(name)).collect();
        if let Some(first) = unused.first() {
            let folder = self.folder.display();
            tracing::warn!(%folder, "the model has no place for {} of the tensors, such as {first}", unused.len());
        }
    }

    /// Checks that tensors are there, by name and shape.
    ///
    /// # Errors
    /// [`Error::Weights`] with every tensor that is missing or has another shape or type.
    pub fn check_weights(&self, expected: &[(String, Vec<usize>)]) -> Result<()> {
        let problems: Vec<_> = expected
            .iter()
            .filter_map(|(name, shape)| {
                let tensor = name.clone();
                match self.tensors.describe(name) {
                    None => Some(WeightProblem::Missing { tensor, expected: shape.clone() }),
                    Some((found, _, _)) if found != shape => {
                        Some(WeightProblem::Shape { tensor, expected: shape.clone(), found: found.to_vec() })
                    }
                    Some((_, found, None)) => Some(WeightProblem::Dtype { tensor, found }),
                    Some(_) => None,
                }
            })
            .collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Error::Weights { folder: self.folder.clone(), problems })
        }
    }
}
