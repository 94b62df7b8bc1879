//! Inputs and outputs of graphs whose cache our own operator updates.

use std::collections::BTreeSet;

use jetmoe_artifact::{Axis, CacheFormat, CacheUpdate, ElementType, Precision, Profile, Signature, Task};

use super::config;

/// Rows of bytes, whatever the width of a head; a task without a cache has none.
#[test]
fn a_cache_that_our_operator_updates_is_rows_of_bytes() {
    let config = config("odd");
    let signature = |task, format| {
        Signature::new(&config, task, Precision::Q4, Profile::Native, &BTreeSet::new())
            .with_kv_cache(&config, format)
    };
    for format in CacheFormat::ALL {
        let signature = signature(Task::CausalLm, *format);
        assert_eq!(signature.cache_update, CacheUpdate::InPlaceByMask);
        let row = Axis::Fixed(format.row_bytes(config.kv_channels).unwrap());
        for input in &signature.inputs[3..] {
            assert_eq!((input.element, input.shape[3]), (ElementType::UInt8, row), "{format}");
        }
        for output in signature.outputs.iter().filter(|output| output.name.is_cache()) {
            assert_eq!((output.element, output.shape[3]), (ElementType::UInt8, row), "{format}");
        }
        assert_eq!(signature.outputs[0].element, ElementType::Float32);
    }
    let classifier = signature(Task::SequenceClassification, CacheFormat::F16);
    assert_eq!(classifier.cache_update, CacheUpdate::Append);
}
