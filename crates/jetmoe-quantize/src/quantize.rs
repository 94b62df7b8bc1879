//! Quantization of single rows.

use jetmoe_format::Scheme;

use crate::{Error, Result, rounding};

/// How a group's scale is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// The largest weight gets the largest code, and every weight the nearest one.
    Nearest,
    /// The scale, of several that clip the largest weights or leave a margin above them, with the least squared error.
    Search,
}

/// What a group's codes stand for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Group {
    pub(crate) scale: f32,
    pub(crate) zero_point: u8,
}

/// Quantizes one row, or a part of it that begins with a group. A code is one byte; signed ones in two's complement.
///
/// # Errors
/// A weight that is infinite or NaN, or a group that the type of its scale does not hold.
///
/// # Panics
/// If the slices' lengths do not fit each other: one code a weight, one scale and zero point a group.
pub fn quantize_row(
    scheme: &Scheme,
    rounding: Rounding,
    weights: &[f32],
    codes: &mut [u8],
    scales: &mut [f32],
    zero_points: &mut [u8],
) -> Result<()> {
    let groups = scheme.groups(weights.len());
    assert_eq!(codes.len(), weights.len(), "one code for each weight");
    assert_eq!(
        (scales.len(), zero_points.len()),
        (groups, groups),
        "one scale and zero point for each group"
    );
    rounding::quantize_row(scheme, rounding, weights, codes, scales, zero_points);
    // a weight that is not finite makes its group's scale so, and the row is searched only then
    match scales.iter().position(|scale| !scale.is_finite()) {
        None => Ok(()),
        Some(group) => Err(explain_failure(scheme, weights, group)),
    }
}

/// Why a group has no finite scale.
pub(crate) fn explain_failure(scheme: &Scheme, weights: &[f32], group: usize) -> Error {
    let first = group * scheme.group_size;
    let group = &weights[first..(first + scheme.group_size).min(weights.len())];
    let bad = group.iter().position(|weight| !weight.is_finite());
    let largest = group.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()));
    match (bad, largest) {
        (Some(place), _) => Error::NotFinite { index: first + place, value: group[place] },
        (None, Some((place, value))) => Error::ScaleTooLarge { index: first + place, value: *value },
        (None, None) => Error::NotFinite { index: first, value: f32::NAN },
    }
}
