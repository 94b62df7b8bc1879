//! The schema of the custom operators.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{HashMap, HashSet};

use jetmoe_format::{
    AttentionHeads, Attribute, Attributes, CacheFormat, CustomOperator, Epsilon, Error, Operand,
    OperatorNode, OperatorSchema, PackedLayout, RowOrder, WeightSlot,
};

struct Integers(HashMap<&'static str, i64>);

impl Attributes for Integers {
    fn integer(&self, name: &str) -> Option<i64> {
        self.0.get(name).copied()
    }

    fn float(&self, name: &str) -> Option<f32> {
        (name == "epsilon").then_some(1e-6)
    }

    fn text(&self, name: &str) -> Option<String> {
        match name {
            "activation" => Some("silu".to_owned()),
            "kv_cache" => Some("f16".to_owned()),
            _ => None,
        }
    }
}

/// Released artifacts hold nodes in this order.
#[test]
fn names_operands_and_attributes_are_those_of_released_artifacts() {
    let lines = OperatorSchema::all().map(|schema| {
        let operands: Vec<String> = schema.operands.iter().map(|operand| format!("{operand:?}")).collect();
        let attributes: Vec<&str> = schema.attributes.iter().map(|attribute| attribute.name()).collect();
        format!("{}({}) {}", schema.operator.name(), operands.join(" "), attributes.join(" "))
    });
    let expected = [
        "Linear(X Codes(Only) Scales(Only) ZeroPoints(Only)) inputs outputs bits group_size",
        "ExpertLinear(X Experts Codes(Only) Scales(Only) ZeroPoints(Only)) inputs outputs bits group_size",
        "ExpertLinearSum(X Experts Gates Codes(Only) Scales(Only) ZeroPoints(Only)) inputs outputs bits group_size",
        "ExpertMlp(X Experts Gates Codes(GateAndUp) Codes(Down) Scales(GateAndUp) Scales(Down) ZeroPoints(GateAndUp) \
         ZeroPoints(Down)) hidden intermediate up_bits down_bits up_group_size down_group_size activation",
        "LookUp(Ids Codes(Only) Scales(Only) ZeroPoints(Only)) inputs outputs bits group_size",
        "Attention(Queries KeysAndValues Cos Sin AttentionMask Sequences PastKey PastValue) kv_heads kv_cache",
        "RmsNorm(X NormWeight) epsilon",
        "Router(X RouterWeight) k",
    ];
    assert_eq!(lines.collect::<Vec<_>>(), expected);
}

#[test]
fn only_operands_at_the_end_are_optional_and_none_comes_twice() {
    for schema in OperatorSchema::all() {
        let required = schema.operands.iter().take_while(|operand| !operand.is_optional()).count();
        assert!(schema.operands[required..].iter().all(|operand| operand.is_optional()), "{schema:?}");
        let distinct: HashSet<&Operand> = schema.operands.iter().collect();
        assert_eq!(distinct.len(), schema.operands.len(), "{schema:?}");
        assert_eq!(OperatorSchema::named(schema.operator.name()), Ok(schema));
    }
}

/// What the exporter writes for a weight is what a runtime reads.
#[test]
fn attributes_give_back_the_layout_that_they_were_written_for() {
    for schema in OperatorSchema::all() {
        for (bits, group_size) in [(4, 16), (8, 128), (16, 32)] {
            let scheme = PackedLayout::scheme(bits, group_size, false).unwrap();
            let layout = |slot| {
                let (outputs, inputs, order) = match slot {
                    WeightSlot::Only => (40, 24, RowOrder::AsStored),
                    WeightSlot::GateAndUp => (2 * 56, 72, RowOrder::Halves),
                    WeightSlot::Down => (72, 56, RowOrder::AsStored),
                };
                PackedLayout { experts: 1, outputs, inputs, scheme, order }
            };
            let number = |attribute: &Attribute| {
                Some((attribute.name(), attribute.value(|slot| Some(layout(slot)))? as i64))
            };
            let numbers = schema.attributes.iter().filter_map(number).chain([("kv_heads", 4), ("k", 2)]);
            let attributes = Integers(numbers.collect());
            let node = OperatorNode::read(schema.operator.name(), &attributes).unwrap();
            assert_eq!(node.operator, schema.operator);
            let heads = AttentionHeads { kv_heads: 4, cache: CacheFormat::F16 };
            assert_eq!(node.heads, (schema.operator == CustomOperator::Attention).then_some(heads));
            assert_eq!(node.experts_per_token, (schema.operator == CustomOperator::Router).then_some(2));
            let epsilon = node.epsilon.map(Epsilon::value);
            assert_eq!(epsilon, (schema.operator == CustomOperator::RmsNorm).then_some(1e-6));
            for slot in schema.weights() {
                assert_eq!(node.layout(slot), Ok(layout(slot)), "{slot:?} of {schema:?}");
            }
        }
    }
}

#[test]
fn what_no_kernel_takes_is_refused_by_name() {
    let read = |changes: &[(&'static str, i64)]| {
        let numbers = [("inputs", 8), ("outputs", 8), ("bits", 4), ("group_size", 32)];
        let mut numbers = HashMap::from(numbers);
        numbers.extend(changes.iter().copied());
        OperatorNode::read("Linear", &Integers(numbers)).unwrap_err().to_string()
    };
    assert_eq!(read(&[("outputs", -1)]), "outputs of Linear is -1");
    assert_eq!(read(&[("bits", 3)]), "weights of 3 bits cannot be packed; 4, 8 and 16 can");
    assert_eq!(
        read(&[("group_size", 20)]),
        "groups of 20 weights are not supported; choose one of [16, 32, 64, 128]"
    );
    // a size overflows, alone or with another one
    let size =
        |outputs| format!("a weight of 1 experts, {outputs} outputs and 8 inputs does not fit in memory");
    assert_eq!(read(&[("outputs", 1 << 62)]), size(1_u64 << 62));
    assert_eq!(read(&[("outputs", i64::MAX)]), size(i64::MAX as u64));
    assert!(read(&[("outputs", 1 << 31), ("inputs", 1 << 31)]).ends_with("does not fit in memory"));
    let heads =
        |kv_heads| OperatorNode::read("Attention", &Integers(HashMap::from([("kv_heads", kv_heads)])));
    assert_eq!(heads(0).unwrap_err().to_string(), "kv_heads of Attention is 0");
    let missing = OperatorNode::read("LookUp", &Integers(HashMap::new())).unwrap_err();
    assert_eq!(missing.to_string(), "LookUp has no attribute outputs");
    let unknown = OperatorNode::read("Conv", &Integers(HashMap::new())).unwrap_err();
    assert_eq!(unknown, Error::UnknownOperator { name: "Conv".to_owned() });
    let node = Integers(HashMap::from([("inputs", 8), ("outputs", 8), ("bits", 4), ("group_size", 32)]));
    let node = OperatorNode::read(CustomOperator::Linear.name(), &node).unwrap();
    let error = node.layout(WeightSlot::Down).unwrap_err().to_string();
    assert_eq!(error, "Linear has no operand Codes(Down)");
}

/// Caches in memory are read by the format that the artifact names.
#[test]
fn rows_of_a_cache_have_the_channels_that_they_were_made_for() {
    let bytes: Vec<_> = CacheFormat::ALL.iter().map(|format| format.row_bytes(128)).collect();
    assert_eq!(bytes, [Some(512), Some(256), Some(132)]);
    for format in CacheFormat::ALL {
        assert_eq!(format.row_bytes(6).and_then(|bytes| format.channels(bytes)), Some(6), "{format}");
        assert_eq!(format.row_bytes(usize::MAX), None, "{format}");
        assert_eq!(format.to_string(), format.name());
    }
    assert_eq!(CacheFormat::F32.channels(6), None);
    assert_eq!(CacheFormat::Int8.channels(3), None);
}
