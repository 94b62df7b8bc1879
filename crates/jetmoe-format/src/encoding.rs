//! The tensors that a weight is written as, and the meaning of their bytes.

use strum::Display;

use crate::packed::{self, length};
use crate::{ElementType, PackedLayout, Result, Scheme, WeightFormat};

/// How a weight is written: the scheme, and the order of its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Element by element, in a floating-point type.
    Float(ElementType),
    /// As codes with a scale per group of inputs of the product. The weight is a matrix, or, along rows, those of all experts.
    Grouped(Scheme, Grouping),
    /// In panels, as the custom operators read them: one matrix, or those of all experts.
    Packed(PackedLayout),
}

/// In which order the groups of a quantized matrix are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grouping {
    /// For `DequantizeLinear`: codes `[inputs, outputs]`, scales `[groups, outputs]`.
    AlongColumns,
    /// For `MatMulNBits`: codes `[outputs, groups, bytes of a group]`, scales `[outputs, groups]`. The matrices of all experts,
    /// for `GatherBlockQuantized`: codes `[experts, outputs, bytes of a row]`, scales `[experts, outputs, groups]`. Codes have no
    /// sign: without zero points 0 is the middle of their range.
    AlongRows,
}

/// The role of a tensor of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display)]
#[strum(serialize_all = "snake_case")]
pub enum TensorRole {
    /// The elements themselves.
    Elements,
    /// Codes, or the elements in panels.
    Codes,
    /// A scale per group.
    Scales,
    /// A zero point per group.
    ZeroPoints,
}

impl TensorRole {
    /// Name of the tensor that a weight of this name is written as.
    pub fn tensor_name(self, weight: &str) -> String {
        match self {
            TensorRole::Elements => weight.to_owned(),
            role => format!("{weight}.{role}"),
        }
    }
}

/// One of the tensors that a weight is written as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its role.
    pub role: TensorRole,
    /// Its element type.
    pub element: ElementType,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.element.bytes(self.shape.iter().map(|size| *size as u64).product())
    }
}

/// Bytes of the tensors of a quantized or packed weight.
#[derive(Debug, Clone, Copy)]
pub struct Tensors<'a> {
    /// Codes, or the elements in panels.
    pub codes: &'a [u8],
    /// Scales.
    pub scales: &'a [u8],
    /// Zero points.
    pub zero_points: Option<&'a [u8]>,
}

impl Encoding {
    /// Format of the elements.
    pub fn format(&self) -> WeightFormat {
        match self {
            Encoding::Float(element) => WeightFormat::of_floats(*element),
            Encoding::Grouped(scheme, _) => scheme.format,
            Encoding::Packed(layout) => layout.scheme.format,
        }
    }

    /// How the elements are quantized; `None` if they are not.
    pub fn scheme(&self) -> Option<Scheme> {
        match self {
            Encoding::Float(_) => None,
            Encoding::Grouped(scheme, _) => Some(*scheme),
            Encoding::Packed(layout) => Some(layout.scheme).filter(|scheme| scheme.format.is_quantized()),
        }
    }

    /// The tensors that a weight of this shape is written as, in the order of the file. The shape of a grouped matrix is
    /// `[inputs, outputs]` along columns, and `[outputs, inputs]` or `[experts, outputs, inputs]` along rows.
    pub fn tensors(&self, shape: &[usize]) -> Vec<TensorSpec> {
        let spec = |role, element, shape: &[usize]| TensorSpec { role, element, shape: shape.to_vec() };
        let (codes, scales, zero_points) = match self {
            Encoding::Float(element) => return vec![spec(TensorRole::Elements, *element, shape)],
            Encoding::Grouped(scheme, Grouping::AlongColumns) => {
                let element = scheme.format.code_element(!scheme.zero_points);
                let mut groups = shape.to_vec();
                if let Some(inputs) = groups.first_mut() {
                    *inputs = scheme.groups(*inputs);
                }
                (
                    spec(TensorRole::Codes, element, shape),
                    spec(TensorRole::Scales, scheme.scales, &groups),
                    spec(TensorRole::ZeroPoints, element, &groups),
                )
            }
            Encoding::Grouped(scheme, Grouping::AlongRows) => {
                let (inputs, outer) =
                    shape.split_last().map_or((1, shape), |(inputs, outer)| (*inputs, outer));
                let groups = scheme.groups(inputs);
                let bytes = |codes: usize| (codes * scheme.format.bits()).div_ceil(8);
                let group = bytes(scheme.group_size);
                let codes = match outer {
                    [_] => vec![groups, group],
                    _ => vec![groups * group],
                };
                let with_outer = |inner: &[usize]| [outer, inner].concat();
                (
                    spec(TensorRole::Codes, ElementType::UInt8, &with_outer(&codes)),
                    spec(TensorRole::Scales, scheme.scales, &with_outer(&[groups])),
                    spec(TensorRole::ZeroPoints, ElementType::UInt8, &with_outer(&[bytes(groups)])),
                )
            }
            Encoding::Packed(layout) => {
                let groups = layout.scales_shape();
                (
                    spec(TensorRole::Codes, ElementType::UInt8, &layout.codes_shape()),
                    spec(TensorRole::Scales, layout.scheme.scales, &groups),
                    spec(TensorRole::ZeroPoints, ElementType::UInt8, &groups),
                )
            }
        };
        let mut tensors = vec![codes];
        if let Some(scheme) = self.scheme() {
            tensors.push(scales);
            tensors.extend(scheme.zero_points.then_some(zero_points));
        }
        tensors
    }

    /// The weights of a matrix `[outputs, inputs]`, or of all experts' matrices in panels, by the definition of the
    /// operator that reads them: ONNX's `DequantizeLinear`, ONNX Runtime's `MatMulNBits`, or the custom operators.
    ///
    /// # Errors
    /// Tensors of other sizes than the encoding requires.
    pub fn dequantize(&self, [outputs, inputs]: [usize; 2], tensors: &Tensors<'_>) -> Result<Vec<f32>> {
        let (scheme, grouping) = match self {
            Encoding::Float(element) => {
                let floats = element.decode_floats(tensors.codes).unwrap_or_default();
                return length("the weight", floats.len(), outputs * inputs).map(|()| floats);
            }
            Encoding::Packed(layout) => return packed::dequantize(*layout, tensors),
            Encoding::Grouped(scheme, grouping) => (scheme, *grouping),
        };
        let by_column = grouping == Grouping::AlongColumns;
        let found = [Some(tensors.codes), Some(tensors.scales), tensors.zero_points];
        let expected = self.tensors(&if by_column { [inputs, outputs] } else { [outputs, inputs] });
        for (index, tensor) in ["the codes", "the scales", "the zero points"].into_iter().enumerate() {
            let size = expected.get(index).map_or(0, |spec| spec.bytes() as usize);
            length(tensor, found[index].map_or(0, <[u8]>::len), size)?;
        }
        let element = scheme.format.code_element(by_column && !scheme.zero_points);
        let codes = element.decode_codes(tensors.codes).unwrap_or_default();
        let scales = scheme.scales.decode_floats(tensors.scales).unwrap_or_default();
        let zero_points = tensors.zero_points.and_then(|bytes| element.decode_codes(bytes));
        let default = if by_column { 0 } else { i16::from(scheme.format.default_zero_point()) };
        // elements from one output to the next, of codes, scales and zero points; the rows of the last fill whole bytes
        let groups = scheme.groups(inputs);
        let row_zero_points = (groups * scheme.format.bits()).div_ceil(8) * 8 / scheme.format.bits();
        let strides = [groups * scheme.group_size, groups, row_zero_points];
        let at = |tensor: usize, output: usize, place: usize| match grouping {
            Grouping::AlongColumns => place * outputs + output,
            Grouping::AlongRows => output * strides[tensor] + place,
        };
        let mut weights = Vec::with_capacity(outputs * inputs);
        for output in 0..outputs {
            for input in 0..inputs {
                let group = input / scheme.group_size;
                let zero_point = zero_points.as_ref().map_or(default, |points| points[at(2, output, group)]);
                let code = codes[at(0, output, input)] - zero_point;
                weights.push(f32::from(code) * scales[at(1, output, group)]);
            }
        }
        Ok(weights)
    }
}
