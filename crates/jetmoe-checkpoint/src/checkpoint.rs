//! A checkpoint folder: configuration and weights, validated together.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::names;
use crate::weights::expected_weights;
use crate::{Digest, Error, GenerationConfig, ModelConfig, Result, TensorView, Tensors, WeightProblem};

/// An opened checkpoint folder: configuration and mapped weights that match each other.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    config: ModelConfig,
    tensors: Tensors,
}

impl Checkpoint {
    /// Opens a folder, validates its configuration and checks presence, shape and type of every tensor.
    ///
    /// # Errors
    /// The first file that cannot be used, or all problems of the configuration or of the weights.
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
        // JetMoeModel.save_pretrained writes the names without the prefix of the models with a head
        if !tensors.contains(names::EMBEDDING)
            && names::EMBEDDING.strip_prefix("model.").is_some_and(|bare| tensors.contains(bare))
        {
            tensors.rename(|name| format!("model.{name}"));
        }
        let checkpoint = Checkpoint { folder: folder.to_owned(), config, tensors };
        let expected = expected_weights(&checkpoint.config);
        checkpoint.check_weights(&expected)?;
        checkpoint.warn_about_unused(&expected);
        Ok(checkpoint)
    }

    /// The checkpoint's folder.
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

    /// The tensor of that name and shape.
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

    /// The settings for generation, see [`GenerationConfig::open`].
    ///
    /// # Errors
    /// A file that cannot be read, or settings that cannot be followed.
    pub fn generation_config(&self) -> Result<GenerationConfig> {
        GenerationConfig::open(&self.folder, &self.config)
    }

    /// Digest of everything that the graph depends on: the configuration and every tensor. It reads all weights;
    /// `progress` receives the number of bytes hashed since its last call.
    ///
    /// # Errors
    /// A configuration file that can no longer be read.
    pub fn digest(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Digest> {
        Digest::of_checkpoint(self, progress)
    }

    /// Unused weights are not an error, as in transformers, but a warning: a layer count that is too low would go
    /// unnoticed otherwise.
    fn warn_about_unused(&self, expected: &[(String, Vec<usize>)]) {
        let expected: HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        let unused: Vec<&str> = self.tensors.names().filter(|name| !expected.contains(name)).collect();
        if let Some(first) = unused.first() {
            let folder = self.folder.display();
            tracing::warn!(%folder, "the model does not use {} of the tensors, for example {first}", unused.len());
        }
    }

    /// Checks presence, shape and type of tensors, given by name and shape.
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
