//! Median and quartiles.

use std::time::Duration;

use serde::Serialize;

/// Median and quartiles of several measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) lower_quartile: f64,
    pub(crate) upper_quartile: f64,
}

impl Spread {
    /// The spread of numbers in any order, with linear interpolation; zero if there are none.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = share * values.len().saturating_sub(1) as f64;
            let (below, above) = (index.floor() as usize, index.ceil() as usize);
            match (values.get(below), values.get(above)) {
                (Some(low), Some(high)) => low + (high - low) * index.fract(),
                _ => 0.0,
            }
        };
        Spread { median: at(0.5), lower_quartile: at(0.25), upper_quartile: at(0.75) }
    }

    /// The spread of durations in seconds.
    pub(crate) fn of_seconds(durations: &[Duration]) -> Self {
        Self::of(durations.iter().map(Duration::as_secs_f64).collect())
    }

    /// All three, multiplied.
    pub(crate) fn times(self, factor: f64) -> Self {
        Spread {
            median: self.median * factor,
            lower_quartile: self.lower_quartile * factor,
            upper_quartile: self.upper_quartile * factor,
        }
    }

    /// Amount per second, where `self` is the time that `amount` takes. The slower quartile becomes the lower one.
    pub(crate) fn rate(self, amount: f64) -> Self {
        Spread {
            median: amount / self.median,
            lower_quartile: amount / self.upper_quartile,
            upper_quartile: amount / self.lower_quartile,
        }
    }
}

#[cfg(test)]
mod tests;
