//! Operands are checked against the node of a custom operator before anything is allocated for its result.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use half::f16;
use jetmoe_backend::operator::{Elements, OperandValue, Operator, isa};
use jetmoe_format::Attributes;
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
                let mut result = vec![f32::NAN; bound.shape().iter().product()];
                let context = ExecContext { isa: isa().unwrap(), threads: &CallingThread };
                bound.compute(context, &mut result).unwrap();
                assert!(result.iter().all(|value| *value == 0.0), "code 8 is the zero point");
                format!("{:?}", bound.shape())
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
