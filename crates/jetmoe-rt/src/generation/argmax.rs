//! The highest of the scores of a vocabulary.

/// Maxima that are kept side by side: one maximum of all scores would wait for each comparison before it begins the next.
const LANES: usize = 16;

/// Index of the first of the highest scores, and its value. `None` if a score is NaN or the maximum is not finite.
pub(super) fn argmax(scores: &[f32]) -> Option<(u32, f32)> {
    let (blocks, rest) = scores.as_chunks::<LANES>();
    let mut lanes = Lanes { highest: [f32::NEG_INFINITY; LANES], nan: [0; LANES] };
    blocks.iter().for_each(|block| lanes.add(block));
    let mut last = [f32::NEG_INFINITY; LANES];
    last[..rest.len()].copy_from_slice(rest);
    lanes.add(&last);
    let highest = lanes.highest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    if !highest.is_finite() || lanes.nan.iter().any(|is_nan| *is_nan != 0) {
        return None;
    }
    // no branch per score, so that the compiler vectorizes the comparisons of a block
    let has_highest =
        |block: &[f32; LANES]| block.iter().fold(false, |found, score| found | (*score == highest));
    let before = LANES * blocks.iter().position(has_highest).unwrap_or(blocks.len());
    let first = before + scores[before..].iter().position(|score| *score == highest)?;
    Some((first as u32, highest))
}

/// What is known of every 16th score.
struct Lanes {
    highest: [f32; LANES],
    /// 1 if one was NaN.
    nan: [u32; LANES],
}

impl Lanes {
    fn add(&mut self, block: &[f32; LANES]) {
        for ((highest, nan), score) in self.highest.iter_mut().zip(&mut self.nan).zip(block) {
            *highest = if *score > *highest { *score } else { *highest };
            *nan |= u32::from(score.is_nan());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::argmax;

    #[test]
    fn the_first_of_the_highest_is_found_at_every_place() {
        for length in [1, 15, 16, 17, 100] {
            for place in 0..length {
                let mut scores = vec![-1.0; length];
                scores[place..].fill(2.0);
                assert_eq!(argmax(&scores), Some((place as u32, 2.0)), "{place} of {length}");
                scores[place] = f32::NAN;
                assert_eq!(argmax(&scores), None, "NaN at {place} of {length}");
                scores[place] = f32::INFINITY;
                assert_eq!(argmax(&scores), None, "infinity at {place} of {length}");
            }
        }
    }

    #[test]
    fn excluded_scores_are_not_chosen() {
        let mut scores = [f32::NEG_INFINITY; 40];
        assert_eq!(argmax(&scores), None);
        assert_eq!(argmax(&[]), None);
        scores[33] = -7.0;
        assert_eq!(argmax(&scores), Some((33, -7.0)));
    }
}
