//! How the weights of a graph's products are stored.

use std::fmt;
use std::str::FromStr;

use jetmoe_checkpoint::Digest;
use jetmoe_format::{Scheme, UnknownName, WeightFormat, named};
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, VariantArray};

use crate::{Error, Precision, Result};

/// A part of the model with product weights. Routers and norms are excluded: they are never quantized.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<ModelPart>)]
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

named!(ModelPart, "part");

/// A part that is stored differently from the rest, everywhere or in one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StorageOverride {
    /// Format of its elements.
    #[serde(rename = "storage")]
    pub format: WeightFormat,
    /// Weights per scale; the plan's group size if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_size: Option<usize>,
    /// The part.
    pub part: ModelPart,
    /// The layer; all layers if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
}

/// A text that is not a [`StorageOverride`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct OverrideError {
    problem: String,
}

impl OverrideError {
    fn new(problem: impl fmt::Display) -> Self {
        OverrideError { problem: problem.to_string() }
    }
}

/// `f32:lm_head`, `int8:layers.0.mlp`, or `int4/16:lm_head` for groups of 16.
impl fmt::Display for StorageOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.format.fmt(f)?;
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

impl FromStr for StorageOverride {
    type Err = OverrideError;

    fn from_str(text: &str) -> Result<Self, OverrideError> {
        let (format, place) = text.split_once(':').ok_or_else(|| {
            let example = "write for instance f32:lm_head or int8:layers.0.mlp";
            OverrideError::new(format_args!("{text:?} does not name a format and a part; {example}"))
        })?;
        let (format, group_size) = match format.split_once('/') {
            None => (format, None),
            Some((format, size)) => {
                let invalid = |_| OverrideError::new(format_args!("{size:?} is no group size, in {text:?}"));
                (format, Some(size.parse().map_err(invalid)?))
            }
        };
        let format: WeightFormat = format.parse().map_err(OverrideError::new)?;
        if group_size.is_some() && !format.is_quantized() {
            return Err(OverrideError::new(format_args!("{format} has no groups; write {format}:{place}")));
        }
        let (layer, part) = match place.strip_prefix("layers.") {
            None => (None, place),
            Some(rest) => {
                let (layer, part) = rest.split_once('.').ok_or_else(|| {
                    OverrideError::new(format_args!(
                        "{place:?} names no part; write for instance layers.0.mlp"
                    ))
                })?;
                let invalid =
                    |_| OverrideError::new(format_args!("{layer:?} is not a layer number, in {place:?}"));
                (Some(layer.parse().map_err(invalid)?), part)
            }
        };
        let part: ModelPart = part.parse().map_err(OverrideError::new)?;
        if layer.is_some() && part == ModelPart::LmHead {
            return Err(OverrideError::new("the head belongs to no layer; write lm_head"));
        }
        Ok(StorageOverride { format, group_size, part, layer })
    }
}

/// How the products' weights are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightPlan {
    /// Weights that share a scale: consecutive ones along the inputs of the product. One of [`Scheme::GROUP_SIZES`].
    pub group_size: usize,
    /// Whether groups have a zero point in addition to their scale.
    pub zero_points: bool,
    /// Overrides of the precision's format; later entries win.
    #[serde(default, rename = "kept")]
    pub overrides: Vec<StorageOverride>,
}

impl WeightPlan {
    /// How a part is stored, in a layer if it belongs to one: by the last matching entry of [`WeightPlan::overrides`],
    /// else by the precision. Scales have the activations' type.
    pub fn scheme(&self, precision: Precision, part: ModelPart, layer: Option<usize>) -> Scheme {
        let fits =
            |found: &&StorageOverride| found.part == part && (found.layer.is_none() || found.layer == layer);
        let found = self.overrides.iter().rev().find(fits);
        let default = match part {
            ModelPart::LmHead => precision.head_format(),
            _ => precision.format(),
        };
        Scheme {
            format: found.map_or(default, |found| found.format),
            group_size: found.and_then(|found| found.group_size).unwrap_or(self.group_size),
            zero_points: self.zero_points,
            scales: precision.activations(),
        }
    }

    /// Checks the plan against the model.
    ///
    /// # Errors
    /// A group size without kernels, or a layer that the model does not have.
    pub fn check(&self, layers: usize) -> Result<()> {
        let sizes = self.overrides.iter().filter_map(|found| found.group_size);
        sizes.chain([self.group_size]).try_for_each(Scheme::check_group_size)?;
        match self.overrides.iter().find(|found| found.layer.is_some_and(|layer| layer >= layers)) {
            Some(found) => Err(Error::NoSuchLayer { storage: *found, layers }),
            None => Ok(()),
        }
    }
}

/// Groups of 32 without zero points, no overrides.
impl Default for WeightPlan {
    fn default() -> Self {
        WeightPlan { group_size: 32, zero_points: false, overrides: Vec::new() }
    }
}

/// The calibration text, and the experts it did not reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalibrationRecord {
    /// Digest of the text file.
    pub text_sha256: Digest,
    /// Number of tokens used.
    pub tokens: usize,
    /// Experts that no token selected, such as `layers.3.mlp.experts.5`; they were quantized without calibration.
    #[serde(rename = "unreached")]
    pub uncalibrated: Vec<String>,
}
