//! Versions of the standard operator set.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// Version of the standard operator set that a graph is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Opset(u32);

impl Opset {
    /// The oldest: `ReduceMean` takes its axes as an input since 18.
    pub const MINIMUM: Opset = Opset(18);
    /// `DequantizeLinear` supports groups and 4-bit types since 21.
    pub const FIRST_WITH_GROUPS: Opset = Opset(21);
    /// The newest that was tested with every runtime.
    pub const MAXIMUM: Opset = Opset(23);

    /// A version of the operator set.
    ///
    /// # Errors
    /// [`Error::Opset`] outside the supported range.
    pub fn new(version: u32) -> Result<Self> {
        if (Self::MINIMUM.0..=Self::MAXIMUM.0).contains(&version) {
            Ok(Opset(version))
        } else {
            Err(Error::Opset { found: version, minimum: Self::MINIMUM.0, maximum: Self::MAXIMUM.0 })
        }
    }

    /// The number.
    pub fn version(self) -> u32 {
        self.0
    }

    /// The oldest file-format version with this operator set, by the table in ONNX's `Versioning.md`.
    pub fn ir_version(self) -> i64 {
        match self.0 {
            ..=18 => 8,
            19..=20 => 9,
            21..=22 => 10,
            _ => 11,
        }
    }
}

/// 21: the newest that transformers.js 3 and the other clients of an artifact read.
impl Default for Opset {
    fn default() -> Self {
        Opset(21)
    }
}

impl fmt::Display for Opset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Opset {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Opset::new(text.parse().map_err(|source| Error::OpsetNumber { text: text.to_owned(), source })?)
    }
}
