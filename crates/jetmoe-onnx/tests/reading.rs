//! Reading of files that are no graph of an artifact.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::path::Path;

use jetmoe_artifact::MAX_GRAPH_BYTES;
use jetmoe_onnx::{
    Attribute, Error, Graph, MAX_ONNX_BYTES, Model, Node, StringStringEntry, Tensor, read, read_up_to,
    with_data_file,
};

#[test]
fn a_file_that_is_no_onnx_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    // a group, which decoding skips, is in the last ones
    for (name, content) in [
        ("empty.onnx", &b""[..]),
        ("text.onnx", b"this is no model"),
        ("zeros.onnx", &[0; 64]),
        ("group.onnx", &[0xFB, 1, 8, 1, 0x13, 0x14, 0xFC, 1]),
        ("open-group.onnx", &[0xFB, 1, 8, 1]),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        assert!(matches!(read(&path), Err(Error::NotOnnx { .. })), "{name}");
    }
}

#[test]
fn a_model_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let node = Node { input: vec!["a".to_owned(), "b".to_owned()], ..Node::default() };
    let graph = Graph { node: vec![node; 3], ..Graph::default() };
    let model = Model { ir_version: Some(10), graph: Some(graph), ..Model::default() };
    fs::write(&path, model.to_bytes()).unwrap();
    assert_eq!(read(&path).unwrap(), model);
}

fn sparse_file(path: &Path, size: u64) {
    File::create(path).unwrap().set_len(size).unwrap();
}

#[test]
fn a_file_that_is_longer_than_a_graph_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.onnx");
    for (size, limit) in [(MAX_GRAPH_BYTES + 1, MAX_GRAPH_BYTES), (1 << 40, MAX_ONNX_BYTES)] {
        sparse_file(&path, size);
        match read_up_to(&path, limit).unwrap_err() {
            Error::TooLong { found, limit: most, .. } => assert_eq!((found, most), (size, limit)),
            other => panic!("{other}"),
        }
    }
}

/// 4 million empty nodes have 8 MB in the file and more than half a gigabyte in memory, twice that in a list that grows.
#[test]
fn a_file_of_very_many_messages_is_refused_before_it_is_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.onnx");
    let nodes = [10, 0].repeat(4_000_000);
    // ir_version 10; field 7, the graph, with a length in 4 bytes
    let length: Vec<u8> = (0..4).map(|index| (nodes.len() >> (7 * index)) as u8 & 0x7F).collect();
    let length = [length[0] | 0x80, length[1] | 0x80, length[2] | 0x80, length[3]];
    fs::write(&path, [&[8, 10, 0x3A][..], &length, &nodes].concat()).unwrap();
    let error = read(&path).unwrap_err();
    assert!(matches!(error, Error::TooManyMessages { limit: 1_073_741_824, .. }), "{error}");
}

#[test]
fn a_folder_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(read(folder.path()), Err(Error::NotAFile { .. })));
}

/// Opening a pipe would wait for somebody who writes into it.
#[cfg(unix)]
#[test]
fn a_pipe_is_refused_and_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe.onnx");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    assert!(matches!(read(&path), Err(Error::NotAFile { .. })));
}

/// A graph with a weight and a constant in the data file `name`.
fn with_tensors_in(name: &str) -> Model {
    let entry = |key: &str, value: &str| StringStringEntry {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    };
    let tensor = Tensor {
        name: Some("location".to_owned()),
        external_data: vec![entry("location", name), entry("offset", "64"), entry("length", "4")],
        ..Tensor::default()
    };
    let attribute = Attribute { t: Some(tensor.clone()), ..Attribute::default() };
    let node = Node { attribute: vec![attribute], ..Node::default() };
    let graph = Graph { node: vec![node], initializer: vec![tensor; 2], ..Graph::default() };
    Model { ir_version: Some(10), graph: Some(graph), ..Model::default() }
}

#[test]
fn a_graph_can_be_made_to_name_another_data_file() {
    let path = Path::new("model.onnx");
    let renamed = with_data_file(path, &with_tensors_in("data").to_bytes(), "blob").unwrap();
    assert_eq!(renamed, with_tensors_in("blob").to_bytes());
}

#[test]
fn a_graph_that_would_lose_fields_is_not_changed() {
    // a field that the messages do not have
    let bytes = [with_tensors_in("data").to_bytes().as_slice(), &[0xF8, 0x07, 1]].concat();
    let error = with_data_file(Path::new("model.onnx"), &bytes, "blob").unwrap_err();
    assert!(matches!(error, Error::Unexpected { .. }), "{error}");
}
