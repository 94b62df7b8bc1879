//! Checks that a graph is one that the exporter writes for the configuration of its artifact: before a backend, which trusts
//! graphs, loads it.
//!
//! What is checked: that the file has no fields but those of [`messages`](crate::messages); inputs and outputs by the
//! signature; the operators and their attributes; sizes that attributes name by those of the weights and of the
//! configuration; type, size and place of every initializer; integer constants. What a step computes is not followed, so its
//! results may be of any size.

mod attributes;
mod initializers;
mod integers;
mod nodes;
mod signature;
mod weights;

use std::fmt::Display;
use std::path::Path;

use jetmoe_artifact::{GraphRecord, Precision, Profile, Task};
use jetmoe_checkpoint::ModelConfig;

use self::initializers::DataFile;
use crate::operators::MICROSOFT;
use crate::reader::decode;
use crate::{Error, Model, Result, StringStringEntry};

/// Checks a graph, the content of the file `path`, which the manifest of its artifact describes as `record`.
///
/// # Errors
/// What is no ONNX model, and [`Error::Unexpected`] for a graph that no exporter writes.
pub fn check_graph(path: &Path, bytes: &[u8], config: &ModelConfig, record: &GraphRecord) -> Result<()> {
    let model = decode(path, bytes)?;
    check(bytes, &model, config, record).map_err(|refusal| refusal.of_file(path))
}

/// Facts about a model that its graph file repeats.
pub fn metadata(task: Task, precision: Precision, profile: Profile) -> Vec<StringStringEntry> {
    let facts = [
        ("jetmoe.task", task.to_string()),
        ("jetmoe.precision", precision.to_string()),
        ("jetmoe.profile", profile.to_string()),
    ];
    let entry =
        |(key, value): (&str, String)| StringStringEntry { key: Some(key.to_owned()), value: Some(value) };
    facts.into_iter().map(entry).collect()
}

/// Why a graph is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    place: String,
    problem: String,
}

impl Refusal {
    pub(crate) fn of_file(self, path: &Path) -> Error {
        Error::Unexpected { path: path.to_owned(), place: self.place, problem: self.problem }
    }
}

pub(crate) type Checked<T = ()> = std::result::Result<T, Refusal>;

fn refuse<T>(place: impl Display, problem: impl Display) -> Checked<T> {
    Err(Refusal { place: place.to_string(), problem: problem.to_string() })
}

/// A name of the file as a message shows it: quoted, escaped, and not longer than a line.
fn shown(name: &str) -> String {
    const MOST: usize = 100;
    let shortened = name.chars().take(MOST).collect::<String>();
    let dots = if shortened.len() < name.len() { "…" } else { "" };
    format!("{shortened:?}{dots}")
}

fn check(bytes: &[u8], model: &Model, config: &ModelConfig, record: &GraphRecord) -> Checked {
    check_fields(bytes, model)?;
    check_header(model, record)?;
    let Some(graph) = &model.graph else { return refuse("the file", "it holds no graph") };
    let signature = record.signature(config);
    signature::check(graph, &signature)?;
    let tensors = initializers::check(graph, &DataFile::of(record)?)?;
    signature::check_defaults(&tensors, &signature)?;
    nodes::check(graph, &tensors, config, record)
}

/// Refuses what decoding skips or changes: fields that the messages do not have, such as functions, training or subgraphs.
pub(crate) fn check_fields(bytes: &[u8], model: &Model) -> Checked {
    let encoded = model.to_bytes();
    if encoded == bytes {
        return Ok(());
    }
    let place = encoded.iter().zip(bytes).take_while(|(encoded, found)| encoded == found).count();
    refuse(
        format_args!("byte {place}"),
        "from here on it is not as it is decoded: it has fields that exported graphs do not have, or writes them otherwise",
    )
}

fn check_header(model: &Model, record: &GraphRecord) -> Checked {
    for (index, set) in model.opset_import.iter().enumerate() {
        let domain = set.domain();
        let place = format!("operator set {}", shown(domain));
        let expected = match domain {
            "" => i64::from(record.opset),
            MICROSOFT | jetmoe_format::DOMAIN => 1,
            _ => return refuse(place, "exported graphs do not import it"),
        };
        if set.version() != expected {
            return refuse(place, format_args!("its version is {}, expected {expected}", set.version()));
        }
        if model.opset_import[..index].iter().any(|other| other.domain() == domain) {
            return refuse(place, "it is imported twice");
        }
    }
    if !model.opset_import.iter().any(|set| set.domain().is_empty()) {
        return refuse("operator sets", "the standard one is not imported");
    }
    if model.metadata_props != metadata(record.task, record.precision, record.profile) {
        return refuse(
            "metadata",
            "task, precision and profile are not those of the artifact, or it has other keys",
        );
    }
    Ok(())
}
