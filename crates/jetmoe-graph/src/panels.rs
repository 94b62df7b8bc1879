//! Weights in the layout of `jetmoe-kernels`, which our own operators read where they are mapped.

use jetmoe_artifact::WeightStorage;
use jetmoe_kernels::{Element, Layout, RowOrder};
use jetmoe_quantize::{Bits, Scales, Scheme};

use crate::ElementType;
use crate::weight::Part;

/// How a weight lies in panels, the matrices of all experts one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Panels {
    pub(crate) layout: Layout,
    /// Whether groups have a zero point besides their scale.
    pub(crate) zero_points: bool,
}

impl Panels {
    /// For a tensor `[outputs, inputs]` or `[experts, outputs, inputs]`.
    pub(crate) fn new(shape: &[usize], element: Element, order: RowOrder, zero_points: bool) -> Self {
        let (experts, outputs, inputs) = match shape {
            [experts, outputs, inputs] => (*experts, *outputs, *inputs),
            [outputs, inputs] => (1, *outputs, *inputs),
            _ => unreachable!("experts have matrices"),
        };
        Panels { layout: Layout { experts, outputs, inputs, element, order }, zero_points }
    }

    /// How the elements are rounded, where they are codes. Codes have no sign in the file.
    pub(crate) fn scheme(&self) -> Option<Scheme> {
        let bits = match self.layout.element {
            Element::Int4(_) => Bits::Four,
            Element::Int8(_) => Bits::Eight,
            Element::Bf16 => return None,
        };
        let group_size = self.layout.element.group_size()?.weights();
        Some(Scheme { bits, group_size, zero_points: self.zero_points, scales: Scales::Float16 })
    }

    /// The type of the elements.
    pub(crate) fn storage(&self) -> WeightStorage {
        match self.layout.element {
            Element::Int4(_) => WeightStorage::Int4,
            Element::Int8(_) => WeightStorage::Int8,
            Element::Bf16 => WeightStorage::Bf16,
        }
    }

    /// Elements as bytes, and scales and perhaps zero points where they are codes.
    pub(crate) fn parts(&self, name: &str) -> Vec<Part> {
        let part = |suffix: &str, element, shape: [usize; 4]| Part {
            name: format!("{name}.{suffix}"),
            element,
            shape: shape.to_vec(),
        };
        let mut parts = vec![part("codes", ElementType::UInt8, self.layout.codes_shape())];
        if let Some(scheme) = self.scheme() {
            let shape = self.layout.scales_shape();
            parts.push(part("scales", ElementType::Float16, shape));
            if scheme.zero_points {
                parts.push(part("zero_points", ElementType::UInt8, shape));
            }
        }
        parts
    }
}
