//! Quantized weights, dequantized by the definitions of the operators that read them: DequantizeLinear of
//! <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html> with blocks, and MatMulNBits and
//! GatherBlockQuantized of <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>.

use half::f16;
use jetmoe_onnx::{DataType, Node, Tensor};

use crate::Written;
use crate::panels::matrices_of;
use crate::shared::bytes;

/// A matrix that an operator dequantizes, as `[outputs, inputs]` of the checkpoint.
pub(crate) struct Matrix {
    /// Name of the weight without `.T` and the part.
    pub(crate) weight: String,
    /// The operator that reads it.
    pub(crate) operator: String,
    pub(crate) bits: usize,
    pub(crate) group_size: usize,
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
    /// `[outputs, inputs]`
    pub(crate) elements: Vec<Element>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Element {
    /// The code minus its zero point.
    pub(crate) number: i32,
    /// Least and greatest value of the code minus its zero point.
    pub(crate) range: (i32, i32),
    pub(crate) scale: f32,
}

impl Element {
    pub(crate) fn dequantized(self) -> f64 {
        f64::from(self.number) * f64::from(self.scale)
    }
}

pub(crate) fn matrices(written: &Written) -> Vec<Matrix> {
    let mut found = Vec::new();
    for node in &written.graph().node {
        match (node.domain.as_deref().unwrap_or(""), node.op_type.as_deref().unwrap()) {
            ("", "DequantizeLinear") => found.push(dequantize_linear(written, node)),
            ("com.microsoft", "MatMulNBits") => found.push(mat_mul_n_bits(written, node)),
            ("jetmoe", _) => found.extend(matrices_of(written, node)),
            ("com.microsoft", "GatherBlockQuantized") => found.extend(gather_block_quantized(written, node)),
            // they read no weight
            ("", _) | ("com.microsoft", "FusedMatMul" | "GroupQueryAttention" | "RotaryEmbedding") => {}
            other => unreachable!("no graph should use {other:?}"),
        }
    }
    found
}

fn integer(node: &Node, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))?.i
}

fn dims(tensor: &Tensor) -> Vec<usize> {
    tensor.dims.iter().map(|size| *size as usize).collect()
}

fn is_of(tensor: &Tensor, kind: DataType) -> bool {
    tensor.data_type == Some(kind as i32)
}

fn weight_of(tensor: &Tensor, suffix: &str) -> String {
    let name = tensor.name.as_deref().unwrap().strip_suffix(suffix).unwrap();
    name.strip_suffix(".T").unwrap_or(name).to_owned()
}

/// The two halves of every byte, the low one first.
fn halves(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [byte % 16, byte / 16]).collect()
}

/// Elements of a tensor of codes, by its ONNX type and shape.
fn codes(tensor: &Tensor, data: &[u8]) -> Vec<i32> {
    let count: usize = dims(tensor).iter().product();
    let stored = bytes(tensor, data);
    let halves = || {
        assert_eq!(stored.len(), count.div_ceil(2), "{:?}", tensor.name);
        let mut halves = halves(stored);
        // the padding of the last byte is not an element
        assert!(halves[count..].iter().all(|half| *half == 0), "{:?}", tensor.name);
        halves.truncate(count);
        halves
    };
    let signed = |half: u8| if half > 7 { i32::from(half) - 16 } else { i32::from(half) };
    match tensor.data_type.unwrap() {
        kind if kind == DataType::Int4 as i32 => halves().into_iter().map(signed).collect(),
        kind if kind == DataType::Uint4 as i32 => halves().into_iter().map(i32::from).collect(),
        kind if kind == DataType::Int8 as i32 => stored.iter().map(|byte| i32::from(*byte as i8)).collect(),
        kind if kind == DataType::Uint8 as i32 => stored.iter().map(|byte| i32::from(*byte)).collect(),
        kind => unreachable!("{:?} has the type {kind}", tensor.name),
    }
}

fn scales(tensor: &Tensor, data: &[u8]) -> Vec<f32> {
    let count: usize = dims(tensor).iter().product();
    let bytes = bytes(tensor, data);
    let scales: Vec<f32> = if is_of(tensor, DataType::Float16) {
        bytes.chunks_exact(2).map(|pair| f16::from_le_bytes(pair.try_into().unwrap()).to_f32()).collect()
    } else {
        assert!(is_of(tensor, DataType::Float), "{:?}", tensor.name);
        bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
    };
    assert_eq!(scales.len(), count, "{:?}", tensor.name);
    // some runtimes reject others
    assert!(scales.iter().all(|scale| *scale > 0.0 && scale.is_finite()), "{:?}", tensor.name);
    scales
}

/// `y[i, j] = (x[i, j] − zero[i / block, j]) · scale[i / block, j]` for the axis 0.
fn dequantize_linear(written: &Written, node: &Node) -> Matrix {
    let operands: Vec<&Tensor> = node.input.iter().map(|name| written.tensor(name)).collect();
    let [codes_tensor, scales_tensor, zeros @ ..] = operands.as_slice() else { panic!("{node:?}") };
    assert_eq!(integer(node, "axis"), Some(0));
    let block = integer(node, "block_size").unwrap() as usize;
    let shape = dims(codes_tensor);
    let [inputs, outputs] = shape[..] else { panic!("{shape:?}") };
    let groups = inputs.div_ceil(block);
    assert_eq!(dims(scales_tensor), [groups, outputs], "{:?}", scales_tensor.name);
    let zeros = zeros.first().map(|zeros| {
        assert_eq!((zeros.data_type, dims(zeros)), (codes_tensor.data_type, dims(scales_tensor)));
        codes(zeros, &written.data)
    });
    let (found, scales) = (codes(codes_tensor, &written.data), scales(scales_tensor, &written.data));
    let bits =
        if is_of(codes_tensor, DataType::Int4) || is_of(codes_tensor, DataType::Uint4) { 4 } else { 8 };
    let signed = is_of(codes_tensor, DataType::Int4) || is_of(codes_tensor, DataType::Int8);
    let low = if signed { -(1 << (bits - 1)) } else { 0 };
    let elements = (0..outputs * inputs).map(|place| {
        let (output, input) = (place / inputs, place % inputs);
        let group = input / block * outputs + output;
        let zero = zeros.as_ref().map_or(0, |zeros| zeros[group]);
        let range = (low - zero, low + (1 << bits) - 1 - zero);
        Element { number: found[input * outputs + output] - zero, range, scale: scales[group] }
    });
    Matrix {
        weight: weight_of(codes_tensor, ".codes"),
        operator: "DequantizeLinear".to_owned(),
        bits,
        group_size: block,
        outputs,
        inputs,
        elements: elements.collect(),
    }
}

/// Codes `[N, groups, bytes of a group]`, scales `[N, groups]`, zero points `[N, bytes of the groups' zero
/// points]`; the zero point is the middle of the range where there is none.
fn mat_mul_n_bits(written: &Written, node: &Node) -> Matrix {
    let operands: Vec<&Tensor> = node.input[1..].iter().map(|name| written.tensor(name)).collect();
    let (inputs, outputs) = (integer(node, "K").unwrap() as usize, integer(node, "N").unwrap() as usize);
    let (bits, block) =
        (integer(node, "bits").unwrap() as usize, integer(node, "block_size").unwrap() as usize);
    assert_eq!(
        dims(operands[0]),
        [outputs, inputs.div_ceil(block), block * bits / 8],
        "{:?}",
        operands[0].name
    );
    by_rows(written, "MatMulNBits", operands[0], ".codes", &operands[1..], (outputs, inputs, bits, block))
}

/// The same parts, but that the codes are a matrix `[rows, bytes of a row]`, or one for each expert.
fn gather_block_quantized(written: &Written, node: &Node) -> Vec<Matrix> {
    let operands: Vec<&Tensor> = [0, 2, 3]
        .iter()
        .filter_map(|place| node.input.get(*place))
        .map(|name| written.tensor(name))
        .collect();
    let codes = dims(operands[0]);
    assert_eq!(integer(node, "gather_axis"), Some(0));
    assert_eq!(integer(node, "quantize_axis"), Some(codes.len() as i64 - 1));
    let (bits, block) =
        (integer(node, "bits").unwrap() as usize, integer(node, "block_size").unwrap() as usize);
    let inputs = codes.last().unwrap() * 8 / bits;
    match codes[..] {
        [outputs, _] => {
            let size = (outputs, inputs, bits, block);
            vec![by_rows(written, "GatherBlockQuantized", operands[0], ".codes.bytes", &operands[1..], size)]
        }
        [experts, outputs, _] => {
            // the matrices follow each other
            let flat: Vec<Tensor> = operands.iter().map(|tensor| with_flat_rows(tensor)).collect();
            let others: Vec<&Tensor> = flat[1..].iter().collect();
            let size = (experts * outputs, inputs, bits, block);
            let all = by_rows(written, "GatherBlockQuantized", &flat[0], ".codes", &others, size);
            let of_expert = |(expert, elements): (usize, &[Element])| Matrix {
                weight: format!("{}.{expert}", all.weight),
                operator: all.operator.clone(),
                outputs,
                elements: elements.to_vec(),
                ..all
            };
            all.elements.chunks(outputs * inputs).enumerate().map(of_expert).collect()
        }
        _ => panic!("{node:?}"),
    }
}

/// A tensor of several matrices as one matrix.
fn with_flat_rows(tensor: &Tensor) -> Tensor {
    let [experts, rows, columns] = tensor.dims[..] else { panic!("{:?}", tensor.name) };
    Tensor { dims: vec![experts * rows, columns], ..tensor.clone() }
}

fn by_rows(
    written: &Written,
    operator: &str,
    codes_tensor: &Tensor,
    suffix: &str,
    others: &[&Tensor],
    (outputs, inputs, bits, block): (usize, usize, usize, usize),
) -> Matrix {
    let groups = inputs.div_ceil(block);
    assert!(is_of(codes_tensor, DataType::Uint8), "{:?}", codes_tensor.name);
    assert_eq!(dims(others[0]), [outputs, groups], "{:?}", others[0].name);
    // each row begins with a byte of its own
    let rows = |tensor: &Tensor, row: usize| -> Vec<Vec<u8>> {
        let stored = bytes(tensor, &written.data);
        assert_eq!(stored.len(), outputs * row, "{:?}", tensor.name);
        stored.chunks_exact(row).map(|row| if bits == 4 { halves(row) } else { row.to_vec() }).collect()
    };
    let codes = rows(codes_tensor, groups * block * bits / 8);
    let scales = scales(others[0], &written.data);
    let zeros = others.get(1).map(|zeros| {
        assert!(is_of(zeros, DataType::Uint8), "{:?}", zeros.name);
        let row = (groups * bits).div_ceil(8);
        assert_eq!(dims(zeros), [outputs, row], "{:?}", zeros.name);
        rows(zeros, row)
    });
    let middle = 1 << (bits - 1);
    // the padding of a row's last group is dequantized to zero
    for (output, row) in codes.iter().enumerate() {
        let zero =
            |input: usize| zeros.as_ref().map_or(middle, |zeros| i32::from(zeros[output][input / block]));
        let filled = row.iter().enumerate().skip(inputs);
        assert!(zeros.is_some() || filled.into_iter().all(|(input, code)| i32::from(*code) == zero(input)));
    }
    let elements = (0..outputs * inputs).map(|place| {
        let (output, input) = (place / inputs, place % inputs);
        let zero = zeros.as_ref().map_or(middle, |zeros| i32::from(zeros[output][input / block]));
        let range = (-zero, (1 << bits) - 1 - zero);
        let scale = scales[output * groups + input / block];
        Element { number: i32::from(codes[output][input]) - zero, range, scale }
    });
    Matrix {
        weight: weight_of(codes_tensor, suffix),
        operator: operator.to_owned(),
        bits,
        group_size: block,
        outputs,
        inputs,
        elements: elements.collect(),
    }
}
