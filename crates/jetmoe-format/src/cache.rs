//! How the operator `Attention` stores keys and values.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantArray};

use crate::{UnknownName, named};

/// How a cache that the operator [`Attention`](crate::CustomOperator::Attention) updates stores keys and values. A key or value
/// of one head and token is a *row* of bytes, its numbers in little-endian order.
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
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<CacheFormat>)]
pub enum CacheFormat {
    /// 32-bit floating point.
    F32,
    /// IEEE half precision.
    F16,
    /// Signed 8-bit integers, and behind them the float32 scale of the row.
    Int8,
}

named!(CacheFormat, "cache format");

/// Bytes of a row's scale.
const SCALE_BYTES: usize = 4;

impl CacheFormat {
    /// Bytes of a row of so many channels; `None` if they overflow.
    pub const fn row_bytes(self, channels: usize) -> Option<usize> {
        match self {
            CacheFormat::F32 => channels.checked_mul(4),
            CacheFormat::F16 => channels.checked_mul(2),
            CacheFormat::Int8 => channels.checked_add(SCALE_BYTES),
        }
    }

    /// Channels of a row of so many bytes; `None` where no whole number fits.
    pub const fn channels(self, row_bytes: usize) -> Option<usize> {
        match self {
            CacheFormat::F32 if row_bytes.is_multiple_of(4) => Some(row_bytes / 4),
            CacheFormat::F16 if row_bytes.is_multiple_of(2) => Some(row_bytes / 2),
            CacheFormat::F32 | CacheFormat::F16 => None,
            CacheFormat::Int8 => row_bytes.checked_sub(SCALE_BYTES),
        }
    }

    /// Its name, as in a node's attribute.
    pub fn name(self) -> &'static str {
        self.into()
    }
}
