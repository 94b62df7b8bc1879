//! Packed weights, as the custom operators read them: by the definition of the layout, and by the kernels.

use half::{bf16, f16};
use jetmoe_artifact::{Precision, Profile};
use jetmoe_format::{PackedLayout, PackedWeight, RowOrder, Scheme};
use jetmoe_graph::{Error, Rounding};
use jetmoe_kernels::Activation;
use jetmoe_onnx::{DataType, Node, Tensor};
use jetmoe_quantize::quantize_row;
use safetensors::Dtype;

use crate::dequantized::{self, Matrix};
use crate::shared::{Sizes, bytes, checkpoint, expected};
use crate::{Way, Written, every_way, golden};

/// Rows and columns of a panel's block.
const SIDE: usize = 32;

/// A weight that a node reads.
struct Panels<'a> {
    /// Name of the checkpoint's tensor.
    name: String,
    layout: PackedLayout,
    codes: &'a [u8],
    scales: Option<Vec<f16>>,
    zero_points: Option<&'a [u8]>,
}

impl<'a> Panels<'a> {
    fn new(written: &'a Written, names: [Option<&String>; 3], layout: PackedLayout) -> Self {
        let [codes, scales, zero_points] = names.map(|name| name.map(|name| written.tensor(name)));
        let codes = codes.unwrap();
        let experts = codes.dims[0] as usize;
        let layout = PackedLayout { experts, ..layout };
        let read = |tensor: &Tensor, kind: DataType, shape: [usize; 4]| {
            assert_eq!(tensor.data_type, Some(kind as i32), "{:?}", tensor.name);
            assert_eq!(tensor.dims, shape.map(|size| size as i64), "{:?}", tensor.name);
            bytes(tensor, &written.data)
        };
        let scales = scales.map(|tensor| {
            let bytes = read(tensor, DataType::Float16, layout.scales_shape());
            bytes.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]])).collect()
        });
        Panels {
            name: codes.name.as_deref().unwrap().strip_suffix(".codes").unwrap().to_owned(),
            layout,
            codes: read(codes, DataType::Uint8, layout.codes_shape()),
            scales,
            zero_points: zero_points.map(|tensor| read(tensor, DataType::Uint8, layout.scales_shape())),
        }
    }

    /// Name of one expert's matrix.
    fn matrix_name(&self, expert: usize) -> String {
        let has_experts = self.name.contains("experts") || self.name.contains(".mlp.");
        if has_experts { format!("{}.{expert}", self.name) } else { self.name.clone() }
    }

    /// Panel and place of a row.
    fn place(&self, row: usize) -> (usize, usize) {
        match self.layout.order {
            RowOrder::AsStored => (row / SIDE, row % SIDE),
            RowOrder::Halves => {
                let half = self.layout.outputs / 2;
                let (within, below) = (row % half, row / half);
                (within / 16, within % 16 + 16 * below)
            }
        }
    }

    /// The code at a column, which may be in the padding after the row.
    fn code(&self, expert: usize, row: usize, column: usize) -> i32 {
        let (panel, place) = self.place(row);
        let (block, column) = (column / SIDE, column % SIDE);
        let blocks = self.layout.inputs.div_ceil(SIDE);
        let bits = self.layout.scheme.format.bits();
        let first = ((expert * self.layout.panels() + panel) * blocks + block) * SIDE * SIDE * bits / 8;
        let byte = |piece: usize| self.codes[first + 128 * piece + 4 * place + column % 4];
        i32::from(match bits {
            4 if column % 8 < 4 => byte(column / 8) % 16,
            4 => byte(column / 8) / 16,
            _ => byte(column / 4),
        })
    }

    /// Index of a group's scale.
    fn group(&self, expert: usize, row: usize, column: usize) -> usize {
        let (panel, place) = self.place(row);
        let size = self.layout.group_size().unwrap();
        let groups = (self.layout.inputs.div_ceil(SIDE) * SIDE).div_ceil(size);
        ((expert * self.layout.panels() + panel) * groups + column / size) * SIDE + place
    }

    /// The code of zero.
    fn zero(&self, group: usize) -> i32 {
        let middle = 1 << (self.layout.scheme.format.bits() - 1);
        self.zero_points.map_or(middle, |points| i32::from(points[group]))
    }

    fn matrix(&self, operator: &str, expert: usize) -> Matrix {
        let PackedLayout { outputs, inputs, .. } = self.layout;
        let bits = self.layout.scheme.format.bits();
        let scales = self.scales.as_ref().unwrap();
        let elements = (0..outputs * inputs).map(|place| {
            let (output, input) = (place / inputs, place % inputs);
            let group = self.group(expert, output, input);
            let (code, zero) = (self.code(expert, output, input), self.zero(group));
            let scale = scales[group].to_f32();
            assert!(scale > 0.0 && scale.is_finite(), "{} [{output}, {input}]", self.name);
            let range = (-zero, (1 << bits) - 1 - zero);
            dequantized::Element { number: code - zero, range, scale }
        });
        Matrix {
            weight: self.matrix_name(expert),
            operator: operator.to_owned(),
            bits,
            group_size: self.layout.group_size().unwrap(),
            outputs,
            inputs,
            elements: elements.collect(),
        }
    }

    /// The weights, dequantized by the kernels.
    fn dequantized(&self, expert: usize) -> Vec<f32> {
        let weight =
            PackedWeight::new(self.layout, self.codes, self.scales.as_deref(), self.zero_points).unwrap();
        let mut elements = vec![0.0; self.layout.outputs * self.layout.inputs];
        for (row, elements) in elements.chunks_exact_mut(self.layout.inputs).enumerate() {
            let (panel, place) = self.place(row);
            weight.dequantize_row(expert, panel, place, elements);
        }
        elements
    }
}

/// The weights that a node of a custom operator reads.
fn panels_of<'a>(written: &'a Written, node: &Node) -> Vec<Panels<'a>> {
    let integer = |name: &str| {
        let found = node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name));
        found.unwrap_or_else(|| panic!("{name} of {node:?}")).i.unwrap()
    };
    let size = |name: &str| integer(name) as usize;
    let layout = |outputs, inputs, kind: &str, order| {
        let (bits, group_size) = (integer(&format!("{kind}bits")), integer(&format!("{kind}group_size")));
        let scheme = PackedLayout::scheme(bits, group_size, false).unwrap();
        PackedLayout { experts: 1, outputs, inputs, scheme, order }
    };
    let names = |places: [usize; 3]| places.map(|place| node.input.get(place));
    let one = |first: usize| {
        assert_eq!(node.attribute.len(), 4, "{node:?}");
        let layout = layout(size("outputs"), size("inputs"), "", RowOrder::AsStored);
        vec![Panels::new(written, names([first, first + 1, first + 2]), layout)]
    };
    match node.op_type.as_deref().unwrap() {
        "Linear" | "LookUp" => one(1),
        "ExpertLinear" => one(2),
        "ExpertLinearSum" => one(3),
        "ExpertMlp" => {
            assert_eq!(node.attribute.len(), 7, "{node:?}");
            let activation = node.attribute.iter().find_map(|attribute| attribute.s.clone()).unwrap();
            assert!(Activation::from_name(std::str::from_utf8(&activation).unwrap()).is_some());
            let (hidden, intermediate) = (size("hidden"), size("intermediate"));
            let up = layout(2 * intermediate, hidden, "up_", RowOrder::Halves);
            let down = layout(hidden, intermediate, "down_", RowOrder::AsStored);
            vec![Panels::new(written, names([3, 5, 7]), up), Panels::new(written, names([4, 6, 8]), down)]
        }
        // they read no packed weight
        "Attention" | "RmsNorm" | "Router" => Vec::new(),
        other => unreachable!("there is no operator {other}"),
    }
}

/// Every matrix of codes that a node of a custom operator reads.
pub(crate) fn matrices_of(written: &Written, node: &Node) -> Vec<Matrix> {
    let operator = node.op_type.as_deref().unwrap();
    let panels = panels_of(written, node).into_iter().filter(|panels| panels.scales.is_some());
    panels
        .flat_map(|panels| {
            (0..panels.layout.experts).map(|expert| panels.matrix(operator, expert)).collect::<Vec<_>>()
        })
        .collect()
}

/// Every packed weight.
fn all_panels(written: &Written) -> Vec<Panels<'_>> {
    let own = written.graph().node.iter().filter(|node| node.domain.as_deref() == Some("jetmoe"));
    own.flat_map(|node| panels_of(written, node)).collect()
}

fn native_ways() -> impl Iterator<Item = Way> {
    let bf16 = Way::new(Precision::Bf16, Profile::Native);
    every_way().into_iter().filter(|way| way.profile == Profile::Native).chain([bf16])
}

/// The expected dequantized weights of a matrix.
fn rounded(layout: &PackedLayout, zero_points: bool, weights: &[f32]) -> Vec<f32> {
    if layout.group_size().is_none() {
        return weights.iter().map(|weight| bf16::from_f32(*weight).to_f32()).collect();
    }
    let scheme = Scheme { zero_points, ..layout.scheme };
    let groups = scheme.groups(layout.inputs);
    let mut dequantized = vec![0.0; weights.len()];
    for (weights, dequantized) in weights.chunks(layout.inputs).zip(dequantized.chunks_mut(layout.inputs)) {
        let (mut codes, mut scales, mut zeros) = (vec![0; weights.len()], vec![0.0; groups], vec![0; groups]);
        quantize_row(&scheme, Rounding::Search, weights, &mut codes, &mut scales, &mut zeros).unwrap();
        scheme.dequantize_row(&codes, &scales, &zeros, dequantized);
    }
    dequantized
}

#[test]
fn the_kernels_dequantize_as_the_scheme_does() {
    for name in ["tiny", "odd"] {
        let checkpoint = golden(name);
        for way in native_ways() {
            let written = way.write(&checkpoint, &Rounding::Search).unwrap();
            let mut matrices = 0;
            for panels in all_panels(&written) {
                for expert in 0..panels.layout.experts {
                    let weights = expected(&checkpoint, &panels.matrix_name(expert));
                    let wanted = rounded(&panels.layout, way.zero_points, &weights);
                    assert!(panels.dequantized(expert) == wanted, "{}, {way:?}", panels.matrix_name(expert));
                    matrices += 1;
                }
            }
            let config = checkpoint.config();
            assert!(matrices > config.num_hidden_layers * config.num_local_experts * 4);
        }
    }
}

/// Sizes with every kind of padding in the last panel and block, and a group of padding alone.
#[test]
fn what_is_filled_up_stands_for_zero() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = Sizes { hidden: 77, intermediate: 37, experts: 2 };
    let value = |_: &str, tensor: usize, index: usize| ((tensor * 37 + index * 11) % 251) as f32 - 100.0;
    let checkpoint = checkpoint(folder.path(), Dtype::F32, sizes, value);
    for way in native_ways() {
        let written = way.write(&checkpoint, &Rounding::Nearest).unwrap();
        for panels in all_panels(&written) {
            let Some(scales) = &panels.scales else { continue };
            let PackedLayout { experts, outputs, inputs, .. } = panels.layout;
            let mut used = 0;
            for expert in 0..experts {
                for row in 0..outputs {
                    for column in inputs..inputs.next_multiple_of(SIDE) {
                        let zero = panels.zero(panels.group(expert, row, column));
                        assert_eq!(panels.code(expert, row, column), zero, "{}", panels.name);
                    }
                    let size = panels.layout.group_size().unwrap();
                    used += inputs.div_ceil(size);
                }
            }
            let positive = scales.iter().filter(|scale| **scale > f16::ZERO).count();
            assert_eq!(positive, used, "{}, {way:?}", panels.name);
            assert!(scales.iter().all(|scale| *scale >= f16::ZERO));
        }
    }
}

#[test]
fn a_weight_beyond_bfloat16_is_refused_by_tensor_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = Sizes { hidden: 40, intermediate: 24, experts: 3 };
    let tensor = "model.layers.0.mlp.input_linear.weight";
    let value = |name: &str, _: usize, index: usize| match (name == tensor, index) {
        // [2, 41, 7]
        (true, 5487) if (2 * 48 + 41) * 40 + 7 == index => f32::MAX,
        _ => 1.0,
    };
    let checkpoint = checkpoint(folder.path(), Dtype::F32, sizes, value);
    let refused = Way::new(Precision::Bf16, Profile::Native).write(&checkpoint, &Rounding::Nearest).err();
    assert!(
        matches!(&refused, Some(Error::NotRepresentable { tensor: found, place, .. })
            if found == tensor && place == &[2, 41, 7]),
        "{refused:?}"
    );
}
