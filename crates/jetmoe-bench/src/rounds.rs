//! Raw results of a benchmark: rounds, in each of which every target is measured once. Medians over the rounds count.

use anyhow::Result;
use serde_json::{Map, Value};

/// Measures every target once per round, in turn. `measure` gets a title, the target, and what the round has so far; a target for
/// which it returns `None` is left out.
pub(crate) fn measure<T>(
    rounds: u16,
    targets: &[T],
    name: impl Fn(&T) -> String,
    mut measure: impl FnMut(&str, &T, &Map<String, Value>) -> Result<Option<Value>>,
) -> Result<Vec<Value>> {
    let of_round = |round| {
        let mut results = Map::new();
        for target in targets {
            let name = name(target);
            if let Some(result) = measure(&format!("round {round}, {name}"), target, &results)? {
                results.insert(name, result);
            }
        }
        Ok(Value::Object(results))
    };
    (1..=rounds).map(of_round).collect()
}

/// Raw results.
pub(crate) struct Rounds<'a> {
    pub(crate) raw: &'a Value,
}

impl<'a> Rounds<'a> {
    /// The results of a target, one per round; none if it was not measured.
    pub(crate) fn of(&self, target: &str) -> Vec<&'a Value> {
        let rounds = self.raw["rounds"].as_array().into_iter().flatten();
        rounds.filter_map(|round| round.get(target)).collect()
    }

    /// Median of a number of a target; `None` if it was not measured.
    pub(crate) fn number(&self, target: &str, pointer: &str) -> Option<f64> {
        median(self.of(target).into_iter().filter_map(|result| result.pointer(pointer)?.as_f64()).collect())
    }

    /// As [`Rounds::number`], of one of the `runs` of each result.
    pub(crate) fn number_of_run(
        &self,
        target: &str,
        is_run: impl Fn(&Value) -> bool,
        pointer: &str,
    ) -> Option<f64> {
        let runs = self.of(target).into_iter().filter_map(|result| result["runs"].as_array());
        let runs = runs.filter_map(|runs| runs.iter().find(|run| is_run(run)));
        median(runs.filter_map(|run| run.pointer(pointer)?.as_f64()).collect())
    }
}

/// `None` if there are no values.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { (values[middle - 1] + upper) / 2.0 })
}
