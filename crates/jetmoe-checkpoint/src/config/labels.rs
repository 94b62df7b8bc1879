//! Names of the classes.

use serde_json::Value;

use super::Architecture;
use super::reader::ConfigReader;

/// Far more than any classifier has, and small enough to store every name.
const MAX_LABELS: usize = 1_000_000;

/// transformers' default.
const DEFAULT_LABELS: usize = 2;

/// Class names from `id2label`, else `LABEL_0 …` by `num_labels`, else two of them.
///
/// As in transformers, `num_labels` replaces the names of an `id2label` of another size. What a model other than a
/// classifier has here is a note at most: nothing reads it.
pub(super) fn read(reader: &mut ConfigReader<'_>, architecture: Architecture) -> Vec<String> {
    if architecture == Architecture::SequenceClassification {
        return read_names(reader);
    }
    let problems = reader.take_problems();
    let labels = read_names(reader);
    for problem in reader.replace_problems(problems) {
        reader.note(
            &problem.key,
            format_args!("{}; ignored, because the model is no classifier", problem.message),
        );
    }
    labels
}

fn read_names(reader: &mut ConfigReader<'_>) -> Vec<String> {
    let unnamed = |count: usize| (0..count).map(|index| format!("LABEL_{index}")).collect();
    let Some(value) = reader.value("id2label") else {
        return unnamed(reader.size_up_to(&["num_labels"], DEFAULT_LABELS, MAX_LABELS));
    };
    let Some(names) = value.as_object() else {
        reader.problem("id2label", format!("is {value}, expected an object from id to name"));
        return unnamed(DEFAULT_LABELS);
    };
    if names.is_empty() || names.len() > MAX_LABELS {
        reader.problem("id2label", format!("names {} classes, expected 1 to {MAX_LABELS}", names.len()));
        return unnamed(DEFAULT_LABELS);
    }
    let count = names.len();
    if reader.value("num_labels").is_some_and(|given| given.as_u64() != Some(count as u64)) {
        let number = reader.size_up_to(&["num_labels"], count, MAX_LABELS);
        reader.note(
            "id2label",
            format_args!("names {count} classes, but num_labels is {number}; its names are not used"),
        );
        return unnamed(number);
    }
    let mut labels = vec![None; count];
    for (id, name) in names {
        // Python's `int` takes spaces and leading zeros
        let Ok(id) = id.trim().parse::<i64>() else {
            reader.problem("id2label", format!("has the id {id:?}, expected integers"));
            continue;
        };
        let slot = usize::try_from(id).ok().and_then(|index| labels.get_mut(index));
        match (slot, name) {
            (Some(slot), Value::String(name)) => *slot = Some(name.clone()),
            (Some(slot), other) => *slot = Some(other.to_string()),
            (None, name) => {
                reader.note(
                    "id2label",
                    format_args!("names {name} for class {id}, and there are {count} classes"),
                );
            }
        }
    }
    labels.into_iter().enumerate().map(|(id, name)| name.unwrap_or_else(|| format!("LABEL_{id}"))).collect()
}
