//! Counts of a run, in a file that a later run adds to, and as tables.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::case::Finished;
use super::outcome::{Outcome, panic_place};

/// Counts by a name of an outcome.
type Counts = BTreeMap<String, u64>;

/// The largest value of a quantity, with the seed of its case.
type Largest = BTreeMap<String, (f64, u64)>;

/// Counts and extremes of all cases until now.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// The seed after the last one that was run.
    pub(crate) next_seed: u64,
    /// Time that runs took, in seconds.
    pub(crate) seconds: f64,
    /// Processor time of the driver and of its commands, in seconds.
    pub(crate) processor_seconds: f64,
    by_mutator: BTreeMap<String, Counts>,
    by_command: BTreeMap<String, Counts>,
    /// Seconds, by command.
    longest: Largest,
    /// Bytes of resident memory, by command.
    largest: Largest,
    failures: Vec<(u64, String)>,
    /// Seeds of panics that became errors, with the place of the panic.
    caught: Vec<(u64, String)>,
}

impl Results {
    /// Reads the results of earlier runs; none if the file does not exist.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Results::default());
        }
        let value: Value = serde_json::from_slice(&fs::read(path)?)
            .with_context(|| format!("{} is not valid; remove it to begin again", path.display()))?;
        let counts = |key: &str| {
            let rows = value[key].as_object().into_iter().flatten();
            rows.map(|(name, row)| {
                let row = row.as_object().into_iter().flatten();
                (name.clone(), row.map(|(name, count)| (name.clone(), count.as_u64().unwrap_or(0))).collect())
            })
            .collect()
        };
        let largest = |key: &str| {
            let rows = value[key].as_object().into_iter().flatten();
            rows.map(|(name, row)| {
                (name.clone(), (row[0].as_f64().unwrap_or(0.0), row[1].as_u64().unwrap_or(0)))
            })
            .collect()
        };
        let cases = |key: &str| {
            let rows = value[key].as_array().into_iter().flatten();
            rows.map(|row| (row[0].as_u64().unwrap_or(0), row[1].as_str().unwrap_or_default().to_owned()))
                .collect()
        };
        Ok(Results {
            next_seed: value["next_seed"].as_u64().unwrap_or(0),
            seconds: value["seconds"].as_f64().unwrap_or(0.0),
            processor_seconds: value["processor_seconds"].as_f64().unwrap_or(0.0),
            by_mutator: counts("by_mutator"),
            by_command: counts("by_command"),
            longest: largest("longest_seconds"),
            largest: largest("largest_bytes"),
            failures: cases("failures"),
            caught: cases("caught"),
        })
    }

    /// Writes the file under another name, and renames it: an interrupted run leaves the last complete one.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let value = json!({
            "next_seed": self.next_seed,
            "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
            "by_mutator": self.by_mutator,
            "by_command": self.by_command,
            "longest_seconds": self.longest,
            "largest_bytes": self.largest,
            "failures": self.failures,
            "caught": self.caught,
        });
        let written = path.with_extension("partial");
        fs::write(&written, serde_json::to_string_pretty(&value)?)?;
        fs::rename(&written, path).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn add(&mut self, case: &Finished) {
        let command = case.plan.action.name();
        for (counts, row) in
            [(&mut self.by_mutator, case.plan.mutator.name()), (&mut self.by_command, command.as_str())]
        {
            *counts.entry(row.to_owned()).or_default().entry(case.outcome.name().to_owned()).or_default() +=
                1;
        }
        let extremes = [
            (&mut self.longest, case.ended.took.as_secs_f64()),
            (&mut self.largest, case.ended.peak_bytes as f64),
        ];
        for (largest, value) in extremes {
            let entry = largest.entry(command.clone()).or_default();
            if value > entry.0 {
                *entry = (value, case.seed);
            }
        }
        if case.outcome == Outcome::Caught {
            self.caught.push((case.seed, panic_place(&case.ended.stderr).to_owned()));
        }
        if case.outcome.is_failure() {
            self.failures.push((case.seed, case.outcome.name().to_owned()));
        }
    }

    /// Number of cases.
    pub(crate) fn cases(&self) -> u64 {
        self.by_mutator.values().flat_map(BTreeMap::values).sum()
    }

    /// Number of cases that failed.
    pub(crate) fn failures(&self) -> usize {
        self.failures.len()
    }

    /// The tables, in Markdown.
    pub(crate) fn tables(&self) -> String {
        let mut text = table("mutated", &self.by_mutator);
        text.push('\n');
        text.push_str(&table("command", &self.by_command));
        text.push_str("\n| command | longest | most memory |\n| --- | ---: | ---: |\n");
        for (command, (seconds, seed)) in &self.longest {
            let (bytes, of_bytes) = self.largest.get(command).copied().unwrap_or_default();
            let megabytes = bytes / 1e6;
            text.push_str(&format!(
                "| {command} | {seconds:.1} s (seed {seed}) | {megabytes:.0} MB (seed {of_bytes}) |\n"
            ));
        }
        text
    }
}

/// A row for each name and one for their sum.
fn table(name: &str, rows: &BTreeMap<String, Counts>) -> String {
    let mut text = format!("| {name} | cases |");
    for outcome in Outcome::ALL {
        text.push_str(&format!(" {} |", outcome.name()));
    }
    text.push_str(&format!("\n| --- |{}\n", " ---: |".repeat(1 + Outcome::ALL.len())));
    let mut total = Counts::new();
    for counts in rows.values() {
        for (outcome, count) in counts {
            *total.entry(outcome.clone()).or_default() += count;
        }
    }
    for (name, counts) in
        rows.iter().map(|(name, counts)| (name.as_str(), counts)).chain([("**all**", &total)])
    {
        text.push_str(&format!("| {name} | {} |", counts.values().sum::<u64>()));
        for outcome in Outcome::ALL {
            text.push_str(&format!(" {} |", counts.get(outcome.name()).copied().unwrap_or(0)));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        assert_eq!(Results::read(&path).unwrap().cases(), 0);
        let counts = |row: &str, count| {
            BTreeMap::from([(row.to_owned(), Counts::from([("panics".to_owned(), count)]))])
        };
        let results = Results {
            next_seed: 12,
            seconds: 1.5,
            processor_seconds: 2.5,
            by_mutator: counts("graph", 3),
            by_command: counts("run ort", 3),
            longest: Largest::from([("run ort".to_owned(), (1.25, 7))]),
            largest: Largest::from([("run ort".to_owned(), (4e6, 8))]),
            failures: vec![(7, "panics".to_owned())],
            caught: vec![(8, "tract/x.rs:1:2".to_owned())],
        };
        results.write(&path).unwrap();
        let read = Results::read(&path).unwrap();
        assert_eq!(format!("{read:?}"), format!("{results:?}"));
        assert_eq!((read.cases(), read.failures()), (3, 1));
        let tables = read.tables();
        assert!(tables.contains("| graph | 3 | 0 | 0 | 0 | 3 | 0 |"), "{tables}");
        assert!(tables.contains("| run ort | 1.2 s (seed 7) | 4 MB (seed 8) |"), "{tables}");
    }
}
