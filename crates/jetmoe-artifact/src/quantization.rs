//! How the weights of a graph's products are stored.

use std::fmt;
use std::str::FromStr;

use jetmoe_checkpoint::Digest;
use serde::{Deserialize, Serialize};

use crate::kind::named;
use crate::{Error, Precision, Result};

/// How the elements of a weight are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightStorage {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point with a long fraction.
    F16,
    /// 16-bit floating point with a long exponent.
    Bf16,
    /// 8-bit integers, and a scale per group.
    Int8,
    /// 4-bit integers, and a scale per group.
    Int4,
}

named!(WeightStorage, "storage", F32 = "f32", F16 = "f16", Bf16 = "bf16", Int8 = "int8", Int4 = "int4");

impl WeightStorage {
    /// Whether the elements are integers with scales.
    pub fn is_quantized(self) -> bool {
        match self {
            WeightStorage::F32 | WeightStorage::F16 | WeightStorage::Bf16 => false,
            WeightStorage::Int8 | WeightStorage::Int4 => true,
        }
    }
}

/// A part of the model whose weights enter a product. Routers and norms are none: they are never quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelPart {
    /// Query and output projections of the attention experts.
    Attention,
    /// The shared projection to keys and values.
    KvProj,
    /// Both matrices of the MLP experts.
    Mlp,
    /// The head; with tied embeddings the embedding table too.
    LmHead,
}

named!(ModelPart, "part", Attention = "attention", KvProj = "kv_proj", Mlp = "mlp", LmHead = "lm_head");

/// A part that is stored differently from the rest, everywhere or in one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Kept {
    /// How it is stored.
    pub storage: WeightStorage,
    /// Weights of it that share a scale; as many as everywhere if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_size: Option<usize>,
    /// Which part.
    pub part: ModelPart,
    /// In which layer; in all of them if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
}

/// `f32:lm_head`, `int8:layers.0.mlp`, or `int4/16:lm_head` for groups of 16.
impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.storage.fmt(f)?;
        if let Some(group_size) = self.group_size {
            write!(f, "/{group_size}")?;
        }
        f.write_str(":")?;
        if let Some(layer) = self.layer {
            write!(f, "layers.{layer}.")?;
        }
        self.part.fmt(f)
    }
}

impl FromStr for Kept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (storage, place) = text.split_once(':').ok_or_else(|| {
            format!(
                "{text:?} does not say how to keep what; write for instance f32:lm_head or int8:layers.0.mlp"
            )
        })?;
        let (storage, group_size) = match storage.split_once('/') {
            None => (storage, None),
            Some((storage, size)) => {
                let size =
                    size.parse().map_err(|_| format!("{size:?} is no size of a group, in {text:?}"))?;
                (storage, Some(size))
            }
        };
        let storage: WeightStorage = storage.parse()?;
        if group_size.is_some() && !storage.is_quantized() {
            return Err(format!("{storage} has no groups; write {storage}:{place}"));
        }
        let (layer, part) = match place.strip_prefix("layers.") {
            None => (None, place),
            Some(rest) => {
                let (layer, part) = rest
                    .split_once('.')
                    .ok_or_else(|| format!("{place:?} names no part; write for instance layers.0.mlp"))?;
                let layer =
                    layer.parse().map_err(|_| format!("{layer:?} is no number of a layer, in {place:?}"))?;
                (Some(layer), part)
            }
        };
        let part: ModelPart = part.parse()?;
        if layer.is_some() && part == ModelPart::LmHead {
            return Err("the head belongs to no layer; write lm_head".to_owned());
        }
        Ok(Kept { storage, group_size, part, layer })
    }
}

/// How the weights of one part are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    /// Type of the elements.
    pub weights: WeightStorage,
    /// Weights that share a scale, where they are quantized.
    pub group_size: usize,
    /// Whether groups have a zero point besides their scale.
    pub zero_points: bool,
}

/// How the products' weights are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightPlan {
    /// Weights that share a scale: consecutive ones along the inputs of the product. One of [`WeightPlan::GROUP_SIZES`].
    pub group_size: usize,
    /// Whether groups have a zero point besides their scale.
    pub zero_points: bool,
    /// What is stored differently from the precision's own storage; later entries win.
    #[serde(default)]
    pub kept: Vec<Kept>,
}

impl WeightPlan {
    /// The sizes that runtimes have kernels for.
    pub const GROUP_SIZES: &'static [usize] = &[16, 32, 64, 128];

    /// How a part is stored, in a layer where it belongs to one: as the last of [`WeightPlan::kept`] says that fits,
    /// else as the precision does.
    ///
    /// With 4-bit weights the head takes 8 bits: it is 1 of 130 weights of JetMoE-8B, and, being the embedding too, it
    /// makes half of the loss of quality. `int4:lm_head` asks for 4.
    pub fn storage(&self, precision: Precision, part: ModelPart, layer: Option<usize>) -> Storage {
        let fits = |kept: &&Kept| kept.part == part && (kept.layer.is_none() || kept.layer == layer);
        let kept = self.kept.iter().rev().find(fits);
        let default = match (precision.storage(), part) {
            (WeightStorage::Int4, ModelPart::LmHead) => WeightStorage::Int8,
            (storage, _) => storage,
        };
        Storage {
            weights: kept.map_or(default, |kept| kept.storage),
            group_size: kept.and_then(|kept| kept.group_size).unwrap_or(self.group_size),
            zero_points: self.zero_points,
        }
    }

    /// Checks what cannot be seen from the parts alone.
    ///
    /// # Errors
    /// A group size without kernels, or a layer that the model does not have.
    pub fn check(&self, layers: usize) -> Result<()> {
        let kept = self.kept.iter().filter_map(|kept| kept.group_size);
        if let Some(found) = kept.chain([self.group_size]).find(|size| !Self::GROUP_SIZES.contains(size)) {
            return Err(Error::GroupSize { found });
        }
        match self.kept.iter().find(|kept| kept.layer.is_some_and(|layer| layer >= layers)) {
            Some(kept) => Err(Error::KeptLayer { kept: *kept, layers }),
            None => Ok(()),
        }
    }
}

/// Groups of 32 without zero points, nothing kept.
impl Default for WeightPlan {
    fn default() -> Self {
        WeightPlan { group_size: 32, zero_points: false, kept: Vec::new() }
    }
}

/// The text that quantization was calibrated with, and what it reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalibrationRecord {
    /// Digest of the text file.
    pub text_sha256: Digest,
    /// Tokens of it that were used.
    pub tokens: usize,
    /// Experts that no token of it reached, as in `layers.3.mlp.experts.5`; they were quantized without calibration.
    pub unreached: Vec<String>,
}
