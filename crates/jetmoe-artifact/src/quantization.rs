//! How the weights of a graph's products are stored.

use std::fmt;
use std::str::FromStr;

use jetmoe_checkpoint::Digest;
use jetmoe_format::{Named, Scheme, UnknownName, WeightFormat};
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

impl Named for ModelPart {
    const WHAT: &'static str = "part";
}

impl ModelPart {
    /// Every part, in the order they are listed to users.
    pub const ALL: &'static [Self] = Self::VARIANTS;
}

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

/// Why a text is not a [`StorageOverride`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverrideError {
    /// The text has no colon.
    #[error(
        "{text:?} does not name a format and a part; write for instance f32:lm_head or int8:layers.0.mlp"
    )]
    NoPart {
        /// The text.
        text: String,
    },
    /// The text after the format is not a group size.
    #[error("{size:?} is no group size, in {text:?}")]
    GroupSize {
        /// The text after the format.
        size: String,
        /// The text.
        text: String,
    },
    /// A group size for a format without groups.
    #[error("{format} has no groups; write {format}:{place}")]
    NoGroups {
        /// The format.
        format: WeightFormat,
        /// The part, with its layer.
        place: String,
    },
    /// A layer without a part.
    #[error("{place:?} names no part; write for instance layers.0.mlp")]
    LayerAlone {
        /// The text after the layer.
        place: String,
    },
    /// The layer is not a number.
    #[error("{layer:?} is not a layer number, in {place:?}")]
    Layer {
        /// The text of the layer.
        layer: String,
        /// The part, with its layer.
        place: String,
    },
    /// The head of a layer.
    #[error("the head belongs to no layer; write lm_head")]
    HeadOfLayer,
    /// No such format or part.
    #[error(transparent)]
    Name(#[from] UnknownName),
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
        let text = text.to_owned();
        let Some((format, place)) = text.split_once(':') else {
            return Err(OverrideError::NoPart { text });
        };
        let (format, group_size) = match format.split_once('/') {
            None => (format, None),
            Some((format, size)) => {
                let parsed = size.parse();
                let no_size = |_| OverrideError::GroupSize { size: size.to_owned(), text: text.clone() };
                (format, Some(parsed.map_err(no_size)?))
            }
        };
        let format: WeightFormat = format.parse()?;
        let place = place.to_owned();
        if group_size.is_some() && !format.is_quantized() {
            return Err(OverrideError::NoGroups { format, place });
        }
        let (layer, part) = match place.strip_prefix("layers.").map(|rest| rest.split_once('.')) {
            None => (None, place.as_str()),
            Some(None) => return Err(OverrideError::LayerAlone { place }),
            Some(Some((layer, part))) => {
                let no_layer = |_| OverrideError::Layer { layer: layer.to_owned(), place: place.clone() };
                (Some(layer.parse().map_err(no_layer)?), part)
            }
        };
        let part: ModelPart = part.parse()?;
        if layer.is_some() && part == ModelPart::LmHead {
            return Err(OverrideError::HeadOfLayer);
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
