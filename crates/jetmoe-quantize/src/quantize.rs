//! Quantization of single rows, each group on its own.

use jetmoe_format::Scheme;

use crate::group::quantize_groups;
use crate::{Error, Result, Rounding};

/// Quantizes one row, or a part of a row that begins with a group. A code is one byte; signed codes are in two's complement.
///
/// # Errors
/// A weight that is infinite or NaN, or a group whose scale its type cannot hold.
///
/// # Panics
/// Unless there is one code per weight, and one scale and zero point per group.
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
    quantize_groups(scheme, rounding, weights, codes, scales, zero_points);
    // A weight that is not finite makes its group's scale non-finite, so only then is the row searched for it.
    match scales.iter().position(|scale| !scale.is_finite()) {
        None => Ok(()),
        Some(group) => Err(explain_failure(scheme, weights, group)),
    }
}

/// The error of a group whose scale is not finite.
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
