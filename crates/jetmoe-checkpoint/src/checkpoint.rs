//! A checkpoint folder: configuration and weights, validated together.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;

use crate::names;
use crate::quantized::PackedWeight;
use crate::weights::expected_weights;
use crate::{
    Architecture, ConfigProblem, Digest, Error, GenerationConfig, ModelConfig, Quantization, QuantizedMatrix,
    Result, TensorView, Tensors, WeightProblem, foreign, is_inside, quantized, read_json, wrappers,
};

/// An opened checkpoint folder: configuration and mapped weights that match each other.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    config: ModelConfig,
    tensors: Tensors,
    quantization: Option<Quantization>,
    /// The weights that are stored quantized, by their names.
    quantized: BTreeMap<String, PackedWeight>,
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
        foreign::refuse_adapter(folder)?;
        let config_file = folder.join(names::CONFIG);
        if !config_file.is_file() {
            return Err(Error::MissingFile {
                file: names::CONFIG.to_owned(),
                folder: folder.to_owned(),
                advice: "a checkpoint is a folder as transformers' save_pretrained writes it".to_owned(),
            });
        }
        let json: Value = read_json(&config_file)?;
        let quantization = foreign::read_quantization(&config_file, &json)?;
        let (mut config, notes) = ModelConfig::from_json_with_notes(&json)
            .map_err(|problems| Error::Config { path: config_file.clone(), problems })?;
        for note in notes {
            tracing::warn!("{}, {note}", config_file.display());
        }
        let mut tensors = Tensors::open(folder, weights_file(folder, &json)?)?;
        unwrap_names(folder, &mut tensors);
        let quantized = match &quantization {
            Some(quantization) => unpack_weights(&mut tensors, quantization, &config)?,
            None => BTreeMap::new(),
        };
        foreign::refuse_foreign_tensors(folder, &tensors)?;
        decide_head(folder, &mut config, &mut tensors);
        let checkpoint = Checkpoint { folder: folder.to_owned(), config, tensors, quantization, quantized };
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

    /// How another tool quantized weights of the checkpoint to 4 bits; `None` for a checkpoint without such weights. The tensors
    /// hold the values that the codes stand for.
    pub fn quantization(&self) -> Option<&Quantization> {
        self.quantization.as_ref()
    }

    /// The stored codes of a matrix, of one expert or of a whole tensor; `None` if it is not stored quantized.
    ///
    /// # Errors
    /// A tensor that does not hold what its layout says. Opening the checkpoint has read all of them.
    pub fn quantized_matrix(&self, tensor: &str, expert: Option<usize>) -> Result<Option<QuantizedMatrix>> {
        let matrix = self.quantized.get(tensor).and_then(|weight| match expert {
            Some(expert) => weight.matrices.get(expert),
            None => weight.matrices.first().filter(|_| weight.matrices.len() == 1),
        });
        match (&self.quantization, matrix) {
            (Some(quantization), Some(matrix)) => quantization.unpack(&self.tensors, matrix).map(Some),
            _ => Ok(None),
        }
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

    /// Whether the checkpoint can compute next-token logits: it has a head, or the embedding is the head.
    pub fn has_language_model_head(&self) -> bool {
        self.config.tie_word_embeddings || self.tensors.contains(names::LM_HEAD)
    }

    /// Whether the checkpoint can compute class logits.
    pub fn has_classification_head(&self) -> bool {
        self.tensors.contains(names::SCORE)
    }

    /// Refuses weights of the model that are infinite or NaN. It reads all of them.
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the first such weight of the first tensor that has one.
    pub fn check_finite(&self) -> Result<()> {
        let expected = expected_weights(&self.config).into_iter().map(|(name, _)| name);
        let names: BTreeSet<String> =
            expected.chain([names::LM_HEAD, names::SCORE].map(str::to_owned)).collect();
        let names: Vec<String> = names.into_iter().collect();
        let found =
            names.par_iter().filter_map(|name| Some((name, self.tensors.get(name)?.first_non_finite()?)));
        match found.find_first(|_| true) {
            None => Ok(()),
            Some((tensor, (place, value))) => {
                Err(Error::NotFinite { folder: self.folder.clone(), tensor: tensor.clone(), place, value })
            }
        }
    }

    /// Unused weights are not an error, as in transformers, but a warning: a layer count that is too low would go
    /// unnoticed otherwise.
    fn warn_about_unused(&self, expected: &[(String, Vec<usize>)]) {
        let expected: HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        // a buffer that older versions of transformers saved and every version computes
        let is_computed = |name: &str| name.ends_with("rotary_emb.inv_freq");
        // equal to the embedding, or it would not be tied
        let is_tied_head = |name: &str| name == names::LM_HEAD && self.config.tie_word_embeddings;
        let unused: Vec<&str> = self
            .tensors
            .names()
            .filter(|name| !expected.contains(name) && !is_computed(name) && !is_tied_head(name))
            .filter(|name| !self.tensors.is_packed(name))
            .collect();
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

/// The file of weights, or the index of files, that `transformers_weights` names.
///
/// # Errors
/// [`Error::Config`] if it names no file of the folder.
fn weights_file<'a>(folder: &Path, config: &'a Value) -> Result<Option<&'a str>> {
    let key = "transformers_weights";
    let message = match config.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(file)) if !is_inside(file) => {
            format!("is {file:?}, expected the name of a file inside of the folder")
        }
        Some(Value::String(file)) if !folder.join(file).is_file() => {
            format!("is {file:?}, and the folder has no such file; add it, or remove the key")
        }
        Some(Value::String(file)) => return Ok(Some(file)),
        Some(other) => format!("is {other}, expected the name of a file"),
    };
    let problems = vec![ConfigProblem { key: key.to_owned(), message }];
    Err(Error::Config { path: folder.join(names::CONFIG), problems })
}

/// Gives tensors that were saved from inside a wrapper, or by a model without a head, the names of a model with a head.
fn unwrap_names(folder: &Path, tensors: &mut Tensors) {
    let names: Vec<&str> = tensors.names().collect();
    if let Some(wrapped) = wrappers::first_wrapped(names.iter().copied()) {
        let (folder, name) = (folder.display(), wrappers::unwrapped(wrapped));
        tracing::warn!("the tensors in {folder} have names of a wrapped model: {wrapped} is read as {name}");
        tensors.rename(|name| wrappers::unwrapped(&name));
    }
    // JetMoeModel.save_pretrained writes the names without the prefix of the models with a head
    let bare = names::EMBEDDING.strip_prefix("model.").unwrap_or(names::EMBEDDING);
    if !tensors.contains(names::EMBEDDING) && tensors.contains(bare) {
        let heads = [names::LM_HEAD, names::SCORE];
        tensors.rename(|name| if heads.contains(&name.as_str()) { name } else { format!("model.{name}") });
    }
}

/// Adds the values of every quantized weight of the model to the tensors, and returns where their codes are.
fn unpack_weights(
    tensors: &mut Tensors,
    quantization: &Quantization,
    config: &ModelConfig,
) -> Result<BTreeMap<String, PackedWeight>> {
    let mut names = expected_weights(config);
    names.push((names::LM_HEAD.to_owned(), vec![config.vocab_size, config.hidden_size]));
    let mut unpacked = BTreeMap::new();
    for (name, shape) in names {
        if tensors.contains(&name) {
            continue;
        }
        if let Some(weight) = quantized::find(tensors, quantization.layout, &name, &shape) {
            let values = quantized::dequantize(tensors, quantization, &weight)?;
            let parts = weight.matrices.iter().flat_map(|matrix| {
                quantization.layout.parts().iter().map(move |part| format!("{}.{part}", matrix.module))
            });
            tensors.insert_unpacked(&name, &shape, values, parts.collect::<Vec<_>>());
            unpacked.insert(name, weight);
        }
    }
    Ok(unpacked)
}

/// Decides whether the language-model head is the embedding. The file decides, as in transformers' `tie_weights`: a
/// head that differs from the embedding is a head of its own, whatever `tie_word_embeddings` says, and a single one of
/// two tied tensors is both.
fn decide_head(folder: &Path, config: &mut ModelConfig, tensors: &mut Tensors) {
    if !config.tie_word_embeddings || !tensors.contains(names::LM_HEAD) {
        return;
    }
    if !tensors.contains(names::EMBEDDING) {
        tensors.rename(|name| if name == names::LM_HEAD { names::EMBEDDING.to_owned() } else { name });
    } else if !tensors.are_equal(names::EMBEDDING, names::LM_HEAD) {
        if config.architecture == Architecture::CausalLm {
            tracing::warn!(
                "{}: tie_word_embeddings is true, but {} differs from {}: the model uses both; set it to false",
                folder.join(names::CONFIG).display(),
                names::LM_HEAD,
                names::EMBEDDING
            );
        }
        config.tie_word_embeddings = false;
    }
}
