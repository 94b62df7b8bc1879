//! Locations of the tensors of quantized weights.

use std::collections::BTreeMap;

use jetmoe_artifact::{Precision, Profile, Task};
use jetmoe_graph::{GraphOptions, Opset};
use jetmoe_onnx::{DataType, Tensor};

use crate::shared::external;
use crate::{BY_DEFAULT, Way, Written, every_way, golden, profiles_of};

fn number(tensor: &Tensor, key: &str) -> u64 {
    external(tensor, key).parse().unwrap()
}

/// Bytes that a tensor must have by its type and shape.
fn size(tensor: &Tensor) -> u64 {
    let count: u64 = tensor.dims.iter().map(|size| *size as u64).product();
    match tensor.data_type.unwrap() {
        kind if kind == DataType::Float as i32 => 4 * count,
        kind if kind == DataType::Float16 as i32 || kind == DataType::Bfloat16 as i32 => 2 * count,
        kind if kind == DataType::Int8 as i32 || kind == DataType::Uint8 as i32 => count,
        kind if kind == DataType::Int4 as i32 || kind == DataType::Uint4 as i32 => count.div_ceil(2),
        kind => unreachable!("{:?} has the type {kind}", tensor.name),
    }
}

fn is_view(tensor: &Tensor) -> bool {
    tensor.name.as_deref().unwrap().ends_with(".bytes")
}

#[test]
fn parts_are_aligned_have_the_size_of_their_type_and_do_not_overlap() {
    for name in ["tiny", "odd"] {
        let checkpoint = golden(name);
        for way in every_way() {
            let written = way.write(&checkpoint, &BY_DEFAULT).unwrap();
            let mut end = 0;
            for tensor in written.external().filter(|tensor| !is_view(tensor)) {
                let (offset, length) = (number(tensor, "offset"), number(tensor, "length"));
                assert_eq!(offset % 64, 0, "{:?}, {way:?}", tensor.name);
                assert_eq!(length, size(tensor), "{:?}, {way:?}", tensor.name);
                assert!(offset >= end, "{:?} begins at {offset}, before {end}", tensor.name);
                // the padding before it is less than a cache line
                assert!(offset - end < 64 || length >= 1 << 20, "{:?}", tensor.name);
                end = offset + length;
            }
            assert_eq!(end, written.data.len() as u64, "{way:?}");
        }
    }
}

/// Properties that do not depend on the group size are checked for one size.
fn ways_in_groups_of_32() -> impl Iterator<Item = Way> {
    every_way().into_iter().filter(|way| way.group_size == 32)
}

#[test]
fn a_view_is_at_the_codes_that_it_reads() {
    let checkpoint = golden("tiny");
    for way in ways_in_groups_of_32() {
        let written = way.write(&checkpoint, &BY_DEFAULT).unwrap();
        let views: Vec<&Tensor> = written.external().filter(|tensor| is_view(tensor)).collect();
        // the portable embedding reads zero points as bytes too
        let expected = match (way.profile, way.zero_points) {
            (Profile::Portable, true) => 2,
            (Profile::Portable, false) | (Profile::OnnxRuntime | Profile::Gpu, _) => 1,
            (Profile::Native, _) => 0,
        };
        assert_eq!(views.len(), expected, "{way:?}");
        for view in views {
            let of = view.name.as_deref().unwrap().strip_suffix(".bytes").unwrap();
            assert!(of.ends_with(".codes") || of.ends_with(".zero_points"), "{of}");
            let stored = written.tensor(of);
            for key in ["location", "offset", "length"] {
                assert_eq!(external(view, key), external(stored, key), "{key} of {of}, {way:?}");
            }
            assert_eq!(size(view), size(stored), "{of}, {way:?}");
            // no backend gathers 4-bit elements
            let kinds = [DataType::Int8 as i32, DataType::Uint8 as i32];
            assert!(kinds.contains(&view.data_type.unwrap()), "{of}");
        }
    }
}

#[test]
fn a_tied_table_is_stored_once() {
    let checkpoint = golden("tiny");
    for way in ways_in_groups_of_32() {
        let written = way.write(&checkpoint, &BY_DEFAULT).unwrap();
        let mut places: BTreeMap<u64, u64> = BTreeMap::new();
        for tensor in written.external() {
            if tensor.name.as_deref().unwrap().starts_with("model.embed_tokens.weight") {
                places.insert(number(tensor, "offset"), number(tensor, "length"));
            }
        }
        let parts = if way.zero_points { 3 } else { 2 };
        assert_eq!(places.len(), parts, "codes, scales and zero points, {way:?}");
        let float = 4 * checkpoint.config().vocab_size as u64 * checkpoint.config().hidden_size as u64;
        let stored: u64 = places.values().sum();
        assert!(stored < float, "{stored} bytes, {way:?}");
    }
    for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
        for profile in profiles_of(precision) {
            let written = Way::new(precision, profile).write(&checkpoint, &BY_DEFAULT).unwrap();
            let is_table =
                |tensor: &&Tensor| tensor.name.as_deref().unwrap().starts_with("model.embed_tokens");
            assert_eq!(written.external().filter(is_table).count(), 1, "{precision}, {profile}");
        }
    }
}

#[test]
fn a_profile_imports_the_domains_of_its_operators_and_no_other() {
    let checkpoint = golden("tiny");
    for way in ways_in_groups_of_32() {
        let written = way.write(&checkpoint, &BY_DEFAULT).unwrap();
        let imports: Vec<(String, i64)> = written
            .model
            .opset_import
            .iter()
            .map(|set| (set.domain.clone().unwrap_or_default(), set.version.unwrap()))
            .collect();
        let mut wanted = vec![(String::new(), i64::from(Opset::default().version()))];
        match way.profile {
            Profile::Portable => {}
            Profile::OnnxRuntime | Profile::Gpu => wanted.push(("com.microsoft".to_owned(), 1)),
            Profile::Native => wanted.push(("jetmoe".to_owned(), 1)),
        }
        assert_eq!(imports, wanted, "{way:?}");
    }
}

#[test]
fn onnx_runtimes_contrib_operators_need_no_new_operator_set() {
    let checkpoint = golden("tiny");
    let options = Way::new(Precision::Q4, Profile::OnnxRuntime).options(Task::CausalLm);
    let options = GraphOptions { opset: Opset::MINIMUM, ..options };
    let written = Written::of(&checkpoint, &options, &BY_DEFAULT).unwrap();
    assert_eq!(written.model.opset_import[0].version, Some(18));
    assert!(written.external().all(|tensor| tensor.data_type != Some(DataType::Int4 as i32)));
    assert!(!written.matrices().is_empty());
}

/// ONNX Runtime 1.27 and newer fuse such a node with its product only where nothing else reads the weight, and dequantize the
/// whole weight in every step otherwise.
#[test]
fn every_dequantized_weight_feeds_one_product() {
    let checkpoint = golden("tiny");
    for way in ways_in_groups_of_32() {
        let written = way.write(&checkpoint, &BY_DEFAULT).unwrap();
        let nodes = &written.model.graph.as_ref().unwrap().node;
        let dequantized: Vec<_> = nodes
            .iter()
            .filter(|node| node.op_type.as_deref() == Some("DequantizeLinear"))
            .flat_map(|node| &node.output)
            .collect();
        assert_eq!(!dequantized.is_empty(), way.profile == Profile::Portable, "{way:?}");
        for weight in dequantized {
            let readers = nodes.iter().filter(|node| node.input.contains(weight));
            let readers: Vec<_> = readers.map(|node| node.op_type.as_deref().unwrap_or_default()).collect();
            assert_eq!(readers, ["MatMul"], "{weight}, {way:?}");
        }
    }
}
