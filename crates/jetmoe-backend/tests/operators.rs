//! Operands are checked against the node of a custom operator before anything is allocated for its result.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use half::f16;
use jetmoe_backend::operator::{
    CacheTensor, Elements, ElementsMut, OperandValue, Operator, decode_cache, isa,
};
use jetmoe_format::{Attributes, CacheFormat, ElementType};
use jetmoe_kernels::{CallingThread, ExecContext};

/// 24 inputs, 40 outputs, 4 bits, groups of 32: one block and two panels for each expert.
struct Matrix;

impl Attributes for Matrix {
    fn integer(&self, name: &str) -> Option<i64> {
        Some(match name {
            "inputs" => 24,
            "outputs" => 40,
            "bits" => 4,
            _ => 32,
        })
    }

    fn float(&self, name: &str) -> Option<f32> {
        (name == "epsilon").then_some(1e-6)
    }

    fn text(&self, _name: &str) -> Option<String> {
        None
    }
}

fn operand<'a>(shape: &[usize], elements: Elements<'a>) -> OperandValue<'a> {
    OperandValue { shape: shape.to_vec(), elements }
}

/// Bytes of codes, and scales, of an expert.
const CODES: usize = 2 * 512;
const SCALES: usize = 2 * 32;

#[test]
fn operands_that_fit_are_computed_and_others_refused_by_name() {
    let (codes, scales) = ([0x88; 2 * CODES], [f16::ONE; 2 * SCALES]);
    let (x, gates, experts) = ([1.0; 4 * 24], [1.0; 4], [0, 1, 1, 0]);
    let check = |name: &str, operands: &[OperandValue<'_>]| {
        let operator = Operator::new(name, &Matrix).unwrap();
        match operator.bind(operands) {
            Ok(bound) => {
                let shapes: Vec<_> = bound.results().collect();
                let [(ElementType::Float32, shape)] = *shapes else { panic!("{shapes:?}") };
                let mut result = vec![f32::NAN; shape.iter().product()];
                let context = ExecContext { isa: isa(false).unwrap(), threads: &CallingThread };
                bound.compute(context, &mut [ElementsMut::Float32(&mut result)]).unwrap();
                assert!(result.iter().all(|value| *value == 0.0), "code 8 is the zero point");
                format!("{shape:?}")
            }
            Err(error) => error.to_string(),
        }
    };
    let weight = |experts: usize| {
        let codes = Elements::UInt8(&codes[..experts * CODES]);
        let scales = Elements::Float16(&scales[..experts * SCALES]);
        [operand(&[experts, 2, 1, 512], codes), operand(&[experts, 2, 1, 32], scales)]
    };
    let floats = |shape: &[usize], elements| operand(shape, Elements::Float32(elements));
    let integers = |shape: &[usize], elements| operand(shape, Elements::Int64(elements));

    let linear =
        |shape: &[usize], elements| check("Linear", &[&[floats(shape, elements)], &weight(1)[..]].concat());
    assert_eq!(linear(&[2, 24], &x[..48]), "[2, 40]");
    assert_eq!(linear(&[0, 24], &[]), "[0, 40]");
    assert_eq!(linear(&[2, 23], &x[..46]), "the operator Linear: operand X has 46 elements for 2 rows of 24");
    // no number of elements
    let many = usize::MAX;
    let message = format!("the operator Linear: operand X has the shape [{many}, 2]");
    assert_eq!(linear(&[many, 2], &x[..48]), message);
    // the result would have 4 TB
    let rows = 1 << 40;
    assert_eq!(
        linear(&[rows, 0], &[]),
        format!("the operator Linear: operand X has 0 elements for {rows} rows of 24")
    );
    assert_eq!(linear(&[], &x[..1]), "the operator Linear: operand X is a scalar");

    let short = operand(&[1], Elements::UInt8(&codes[..CODES - 1]));
    let error = check("Linear", &[floats(&[2, 24], &x[..48]), short, weight(1)[1].clone()]);
    assert!(error.contains("elements"), "{error}");
    let scales_missing = &[floats(&[2, 24], &x[..48]), weight(1)[0].clone()];
    assert_eq!(check("Linear", scales_missing), "the scales has 0 elements and should have 64");
    let bytes = operand(&[2, 24], Elements::UInt8(&codes[..48]));
    let error = check("Linear", &[&[bytes], &weight(1)[..]].concat());
    assert_eq!(error, "the operator Linear: operand X is not float32");

    let expert_linear = |shape: &[usize], chosen, rows: usize| {
        let x = floats(&[rows, 24], &x[..rows * 24]);
        check("ExpertLinear", &[&[x, integers(shape, chosen)], &weight(2)[..]].concat())
    };
    assert_eq!(expert_linear(&[2, 2], &experts, 2), "[4, 40]");
    assert!(expert_linear(&[2, 2], &experts, 3).contains("operand X has 72 elements for 2 rows of 24"));
    assert!(expert_linear(&[rows, 0], &[], 0).contains("operand Experts has the shape"));
    assert!(expert_linear(&[4], &experts, 2).contains("operand Experts has the shape [4]"));

    let sum = |gates, shape: &[usize]| {
        let operands = [floats(&[4, 24], &x), integers(&[2, 2], &experts), floats(shape, gates)];
        check("ExpertLinearSum", &[&operands[..], &weight(2)[..]].concat())
    };
    assert_eq!(sum(&gates, &[2, 2]), "[2, 40]");
    assert!(sum(&gates[..3], &[3]).contains("operand Gates has 3 elements for 2 rows of 2"));
    assert_eq!(check("LookUp", &[&[integers(&[1, 2], &[3, 39])], &weight(1)[..]].concat()), "[1, 2, 24]");
}

/// Routers that select two experts.
struct Two;

impl Attributes for Two {
    fn integer(&self, name: &str) -> Option<i64> {
        (name == "k").then_some(2)
    }

    fn float(&self, name: &str) -> Option<f32> {
        (name == "epsilon").then_some(1e-6)
    }

    fn text(&self, _name: &str) -> Option<String> {
        None
    }
}

#[test]
fn a_router_and_a_norm_refuse_weights_of_other_sizes() {
    let numbers = [3.0; 12];
    let floats = |shape: &[usize]| operand(shape, Elements::Float32(&numbers[..shape.iter().product()]));
    let context = ExecContext { isa: isa(false).unwrap(), threads: &CallingThread };
    let router = Operator::new("Router", &Two).unwrap();
    let operands = [floats(&[2, 4]), floats(&[3, 4])];
    let bound = router.bind(&operands).unwrap();
    let results: Vec<_> = bound.results().collect();
    let expected: [(ElementType, &[usize]); 3] =
        [(ElementType::Float32, &[2, 3]), (ElementType::Int64, &[2, 2]), (ElementType::Float32, &[2, 2])];
    assert_eq!(results, expected);
    let (mut logits, mut experts, mut gates) = ([0.0; 6], [9; 4], [0.0; 4]);
    let mut results = [
        ElementsMut::Float32(&mut logits),
        ElementsMut::Int64(&mut experts),
        ElementsMut::Float32(&mut gates),
    ];
    bound.compute(context, &mut results).unwrap();
    assert!(bound.compute(context, &mut results[..1]).is_err());
    assert_eq!((logits, experts, gates), ([36.0; 6], [0, 1, 0, 1], [0.5; 4]));
    let refused = |operands: &[OperandValue<'_>]| router.bind(operands).unwrap_err().to_string();
    assert_eq!(
        refused(&[floats(&[2, 4]), floats(&[3, 3])]),
        "the operator Router: operand RouterWeight has the shape [3, 3] for rows of 4"
    );
    assert_eq!(
        refused(&[floats(&[2, 4]), floats(&[1, 4])]),
        "the operator Router: operand RouterWeight has 1 experts, of which 2 are to be selected"
    );
    assert!(refused(&[floats(&[4]), floats(&[3, 4])]).contains("RouterWeight has the shape [3, 4]"));
    let none = refused(&[floats(&[2, 4])]);
    assert_eq!(none, "the operator Router: operand RouterWeight is missing");

    let norm = Operator::new("RmsNorm", &Two).unwrap();
    assert!(norm.bind(&[floats(&[2, 4]), floats(&[4])]).is_ok());
    let refused = norm.bind(&[floats(&[2, 4]), floats(&[3])]).unwrap_err().to_string();
    assert_eq!(refused, "the operator RmsNorm: operand NormWeight has 3 elements for rows of 4");
}

/// Two key heads, and a cache of float32.
struct Heads;

impl Attributes for Heads {
    fn integer(&self, name: &str) -> Option<i64> {
        (name == "kv_heads").then_some(2)
    }

    fn float(&self, _name: &str) -> Option<f32> {
        None
    }

    fn text(&self, name: &str) -> Option<String> {
        (name == "kv_cache").then(|| "f32".to_owned())
    }
}

#[test]
fn attention_takes_a_cache_that_fits_and_refuses_others_by_name() {
    let operator = Operator::new("Attention", &Heads).unwrap();
    // three tokens of one sequence, two query heads for each of two key heads of four channels
    let floats = [1.0_f32; 48];
    let part =
        |rows: usize, width: usize| operand(&[rows, width], Elements::Float32(&floats[..rows * width]));
    let mask = operand(&[1, 3], Elements::Int64(&[1; 3]));
    let masked = operand(&[0, 3], Elements::Int64(&[]));
    let fitting = [part(6, 8), part(3, 16), part(3, 2), part(3, 2), mask, masked];
    let compute = |operands: &[OperandValue<'_>], shapes: [&[usize]; 2]| {
        let bytes = |shape: &[usize]| vec![0; shape.iter().product()];
        let (mut keys, mut values) = (bytes(shapes[0]), bytes(shapes[1]));
        let cache = [
            CacheTensor { shape: shapes[0].to_vec(), bytes: &mut keys },
            CacheTensor { shape: shapes[1].to_vec(), bytes: &mut values },
        ];
        let context = ExecContext { isa: isa(false).unwrap(), threads: &CallingThread };
        let result = operator.bind_attention(operands).and_then(|step| {
            let mut result = vec![f32::NAN; step.shape().iter().product()];
            step.compute(context, cache, &mut result)?;
            assert_eq!(result, vec![1.0; 48], "all values are 1");
            Ok(format!("{:?}", step.shape()))
        });
        result.unwrap_or_else(|error| error.to_string())
    };
    let cache: [&[usize]; 2] = [&[1, 2, 5, 16]; 2];
    assert_eq!(compute(&fitting, cache), "[6, 8]");
    assert_eq!(
        compute(&fitting, [&[1, 2, 5, 16], &[1, 2, 6, 16]]),
        "the operator Attention: 1 sequences with 2 key heads of 4 channels as f32 do not continue a cache of [1, 2, 5, 16] and \
         [1, 2, 6, 16]"
    );
    assert!(compute(&fitting, [&[1, 2, 5, 8]; 2]).contains("do not continue a cache of [1, 2, 5, 8]"));
    assert!(compute(&fitting, [&[2, 2, 5, 16]; 2]).contains("do not continue a cache of [2, 2, 5, 16]"));
    assert_eq!(compute(&fitting, [&[1, 2, 2, 16]; 2]), "sequence 0 has 3 tokens, in a cache for 2");
    let with = |index: usize, operand: OperandValue<'static>| {
        let mut operands = fitting.clone();
        operands[index] = operand;
        compute(&operands, cache)
    };
    let wrong = "the operator Attention: operand";
    static BYTES: [u8; 6] = [0; 6];
    static ONES: [f32; 54] = [1.0; 54];
    assert_eq!(with(2, operand(&[3, 2], Elements::UInt8(&BYTES))), format!("{wrong} Cos is not float32"));
    assert_eq!(
        with(4, operand(&[1, 6], Elements::UInt8(&BYTES))),
        format!("{wrong} AttentionMask is not int64")
    );
    assert_eq!(
        with(4, operand(&[3], Elements::Int64(&[1; 3]))),
        format!("{wrong} AttentionMask has the shape [3]")
    );
    assert_eq!(
        with(0, operand(&[6, 9], Elements::Float32(&ONES))),
        format!("{wrong} Queries has the shape [6, 9] for 2 key heads")
    );
    assert_eq!(
        with(3, operand(&[3, 1], Elements::Float32(&ONES[..3]))),
        "the sines has 3 elements and should have 6"
    );
    assert_eq!(compute(&fitting[..4], cache), format!("{wrong} AttentionMask is missing"));
    assert_eq!(compute(&fitting[..5], cache), format!("{wrong} Sequences is missing"));
    assert_eq!(
        with(5, operand(&[1, 2], Elements::Int64(&[1; 2]))),
        format!("{wrong} Sequences has the shape [1, 2]")
    );
    assert_eq!(
        with(5, operand(&[1, 3], Elements::UInt8(&BYTES[..3]))),
        format!("{wrong} Sequences is not int64")
    );
    // the mask does not count beside a list
    let listed = |list: &'static [i64], rows: usize| {
        let mut operands = fitting.clone();
        operands[5] = operand(&[list.len() / 3, 3], Elements::Int64(list));
        compute(&operands, [&[rows, 2, 5, 16]; 2])
    };
    assert_eq!(listed(&[3, 0, 1, 0, 0, 2], 4), "[6, 8]");
    assert!(
        listed(&[3, 0, 1, 0, 0, 2], 3).starts_with("sequence 0 of the list, [3, 0, 1], is not a row of 3")
    );
    let mut operands = fitting.clone();
    operands[5] = operand(&[1, 3], Elements::Int64(&[0, 0, 3]));
    assert!(compute(&operands, [&[1, 1, 5, 16]; 2]).contains("listed sequences with 2 key heads"));
    let bound = operator.bind(&fitting).unwrap_err().to_string();
    assert_eq!(bound, format!("{wrong} PastKey is updated by the step, and was bound to read"));
}

#[test]
fn a_cache_is_decoded_by_its_format() {
    let row = [1.0_f32, -2.0].map(f32::to_le_bytes).concat();
    let decoded = decode_cache(CacheFormat::F32, &[1, 1, 1, 8], &row).unwrap();
    assert_eq!((decoded.shape(), decoded.as_slice().unwrap()), (&[1, 1, 1, 2][..], &[1.0, -2.0][..]));
    let codes = [&[127, 0x81][..], &0.5_f32.to_le_bytes()].concat();
    let decoded = decode_cache(CacheFormat::Int8, &[1, 1, 1, 6], &codes).unwrap();
    assert_eq!(decoded.as_slice().unwrap(), [63.5, -63.5]);
    for (format, shape) in
        [(CacheFormat::F16, &[1, 1, 1, 3][..]), (CacheFormat::Int8, &[4]), (CacheFormat::F32, &[])]
    {
        let error = decode_cache(format, shape, &[0; 4]).unwrap_err().to_string();
        assert!(error.contains("has no rows as"), "{error}");
    }
}
