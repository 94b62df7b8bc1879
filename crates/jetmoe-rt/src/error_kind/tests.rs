use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use jetmoe_artifact::{Precision, Task};
use jetmoe_backend::FormatError;

use super::*;
use crate::{LoadOptions, Model};

#[test]
fn the_guides_table_is_that_of_the_code() {
    let guide = include_str!("../../../../docs/write-a-service.md");
    let (_, section) = guide.split_once("| `ErrorKind` | status |").unwrap();
    let rows = section.lines().skip(2).take_while(|line| line.starts_with('|'));
    let listed: Vec<(String, u16)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            (cells[1].trim_matches('`').to_owned(), cells[2].parse().unwrap())
        })
        .collect();
    let expected = ErrorKind::ALL.iter().map(|kind| (format!("{kind:?}"), kind.http_status()));
    assert_eq!(listed, expected.collect::<Vec<_>>());
}

#[test]
fn a_kind_has_a_name_that_it_is_read_from() {
    assert_eq!(ErrorKind::InvalidInput.to_string(), "invalid-input");
    for kind in ErrorKind::ALL {
        assert_eq!(ErrorKind::from_str(&kind.to_string()).unwrap(), *kind);
    }
}

fn io_error(kind: io::ErrorKind) -> CheckpointError {
    CheckpointError::Io { action: "read", path: PathBuf::from("config.json"), source: kind.into() }
}

#[test]
fn a_nested_error_has_the_kind_of_its_cause() {
    let conversation = |template: &str| {
        let template = jetmoe_text::ChatTemplate::new(template, BTreeMap::new())?;
        template.render(&[], true)
    };
    let missing = ArtifactError::MissingFile { path: PathBuf::from("model.onnx") };
    let cases: Vec<(Error, ErrorKind)> = vec![
        (Model::load("/nowhere", &LoadOptions::default()).unwrap_err(), ErrorKind::NotFound),
        (missing.into(), ErrorKind::InvalidModel),
        (ArtifactError::UnknownOutput { name: "x".to_owned() }.into(), ErrorKind::InvalidInput),
        (ArtifactError::Checkpoint(io_error(io::ErrorKind::PermissionDenied)).into(), ErrorKind::Io),
        (ArtifactError::Checkpoint(io_error(io::ErrorKind::NotFound)).into(), ErrorKind::NotFound),
        (TextError::File(io_error(io::ErrorKind::PermissionDenied)).into(), ErrorKind::Io),
        (TextError::NoChatTemplate.into(), ErrorKind::Unsupported),
        (TextError::TooDeep { name: "tools".to_owned(), limit: 128 }.into(), ErrorKind::InvalidInput),
        (TextError::EmptyStopString.into(), ErrorKind::InvalidInput),
        (conversation("{{ raise_exception('no') }}").unwrap_err().into(), ErrorKind::InvalidInput),
        (
            conversation("{% set l = range(9999) %}{% for a in l %}{% for b in l %}{% endfor %}{% endfor %}")
                .unwrap_err()
                .into(),
            ErrorKind::TooLong,
        ),
        (conversation(&" ".repeat((1 << 20) + 1)).unwrap_err().into(), ErrorKind::InvalidModel),
        (TextError::ChatTemplateEngine { problem: String::new() }.into(), ErrorKind::Internal),
        (conversation("{% if %}").unwrap_err().into(), ErrorKind::InvalidModel),
        (BackendError::Run { backend: "fake", source: "x".into() }.into(), ErrorKind::Backend),
        (BackendError::Cancelled { backend: "fake" }.into(), ErrorKind::Cancelled),
        (
            BackendError::Load { backend: "fake", graph: PathBuf::new(), source: "x".into() }.into(),
            ErrorKind::InvalidModel,
        ),
        (BackendError::Format(FormatError::Bits { found: 5 }).into(), ErrorKind::InvalidModel),
        (
            BackendError::LibraryNotFound { provider: None, searched: Vec::new() }.into(),
            ErrorKind::Unsupported,
        ),
        (
            BackendError::Option { option: "threads", found: "0".to_owned(), expected: "at least 1" }.into(),
            ErrorKind::InvalidInput,
        ),
        (
            BackendError::Trace { path: PathBuf::new(), source: io::ErrorKind::StorageFull.into() }.into(),
            ErrorKind::Io,
        ),
        (Error::TooLong { index: 0, tokens: 9, limit: 8 }, ErrorKind::TooLong),
        (Error::EmptyPrompt { index: 0 }, ErrorKind::InvalidInput),
        (Error::WrongTask { found: Task::Backbone, needed: Task::CausalLm }, ErrorKind::Unsupported),
        (
            Error::Memory { backend: "fake", device: None, graph: PathBuf::new(), needed: 2, available: 1 },
            ErrorKind::Busy,
        ),
        (Error::Cancelled, ErrorKind::Cancelled),
        ("q5".parse::<Precision>().map_err(Error::from).unwrap_err(), ErrorKind::InvalidInput),
        (
            ArtifactError::NoSuchGraph {
                folder: PathBuf::new(),
                precision: Some(Precision::Q4),
                profile: None,
                available: Vec::new(),
            }
            .into(),
            ErrorKind::NotFound,
        ),
    ];
    for (error, expected) in cases {
        assert_eq!(error.kind(), expected, "{error}");
    }
}
