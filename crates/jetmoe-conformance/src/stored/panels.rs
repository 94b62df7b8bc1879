//! Weights in panels, as our own operators read them: restored by `jetmoe-kernels`, which defines those operators.

use half::f16;
use jetmoe_artifact::names::operators;
use jetmoe_graph::onnx;
use jetmoe_kernels::{Element, Layout, PANEL_ROWS, RowOrder, Weight};

use super::StoredWeights;
use crate::Result;

/// What an operator is told of a weight that it reads.
#[derive(Debug, Clone)]
pub(super) struct Panels {
    outputs: usize,
    inputs: usize,
    element: Element,
    order: RowOrder,
    scales: Option<String>,
    zero_points: Option<String>,
}

impl Panels {
    fn layout(&self, experts: usize) -> Layout {
        let Panels { outputs, inputs, element, order, .. } = *self;
        Layout { experts, outputs, inputs, element, order }
    }
}

/// The codes of every weight in panels that a node reads, and what it is told of them.
pub(super) fn panels_of(node: &onnx::Node) -> Vec<(String, Panels)> {
    if node.domain.as_deref() != Some(operators::DOMAIN) {
        return Vec::new();
    }
    let integer = |wanted: &str| {
        let attribute = node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(wanted));
        attribute.and_then(|attribute| attribute.i)
    };
    let size = |wanted: &str| integer(wanted).and_then(|size| usize::try_from(size).ok());
    let input = |place: usize| node.input.get(place).cloned();
    let panels = |[outputs, inputs]: [Option<usize>; 2], kind: &str, order, places: [usize; 3]| {
        let element = Element::new(integer(&format!("{kind}bits"))?, integer(&format!("{kind}group_size"))?);
        let [codes, scales, zero_points] = places.map(input);
        let (outputs, inputs, element) = (outputs?, inputs?, element.ok()?);
        Some((codes?, Panels { outputs, inputs, element, order, scales, zero_points }))
    };
    let one = |first: usize| {
        let sizes = [size("outputs"), size("inputs")];
        vec![panels(sizes, "", RowOrder::AsStored, [first, first + 1, first + 2])]
    };
    let found = match node.op_type.as_deref() {
        Some(operators::LINEAR | operators::LOOK_UP) => one(1),
        Some(operators::EXPERT_LINEAR) => one(2),
        Some(operators::EXPERT_LINEAR_SUM) => one(3),
        Some(operators::EXPERT_MLP) => {
            let (hidden, intermediate) = (size("hidden"), size("intermediate"));
            let both = intermediate.map(|width| 2 * width);
            vec![
                panels([both, hidden], "up_", RowOrder::Halves, [3, 5, 7]),
                panels([hidden, intermediate], "down_", RowOrder::AsStored, [4, 6, 8]),
            ]
        }
        _ => Vec::new(),
    };
    found.into_iter().flatten().collect()
}

impl StoredWeights {
    /// The matrices of all experts, one behind the other.
    pub(super) fn restore(&self, codes_name: &str, panels: &Panels, shape: &[usize]) -> Result<Vec<f32>> {
        let damaged = || self.damaged(codes_name);
        let read = |name: &Option<String>| name.as_ref().map(|name| self.read_named(name)).transpose();
        let (experts, outputs, inputs) = match *shape {
            [experts, outputs, inputs] => (experts, outputs, inputs),
            [outputs, inputs] => (1, outputs, inputs),
            _ => return Err(damaged()),
        };
        if (outputs, inputs) != (panels.outputs, panels.inputs) {
            return Err(damaged());
        }
        let layout = panels.layout(experts);
        let codes = self.read_named(codes_name)?;
        let scales: Option<Vec<f16>> = read(&panels.scales)?
            .map(|bytes| bytes.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]])).collect());
        let zero_points = read(&panels.zero_points)?;
        let weight = Weight::new(layout, &codes, scales.as_deref(), zero_points.as_deref());
        let weight = weight.map_err(|_| damaged())?;
        let mut elements = vec![0.0; experts * outputs * inputs];
        for (expert, elements) in elements.chunks_exact_mut(outputs * inputs).enumerate() {
            for panel in 0..layout.panels() {
                for place in 0..PANEL_ROWS {
                    if let Some(row) = layout.row(panel, place) {
                        weight.restore(expert, panel, place, &mut elements[row * inputs..][..inputs]);
                    }
                }
            }
        }
        Ok(elements)
    }
}
