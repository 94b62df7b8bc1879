//! Weights as references into a checkpoint: which tensor, which part of it, in which layout and encoding.

use jetmoe_artifact::WeightStorage;
use jetmoe_checkpoint::{Checkpoint, TensorView};
use jetmoe_quantize::{Bits, Scales, Scheme};

use crate::panels::Panels;
use crate::{ElementType, Error, Result};

/// A reference to a checkpoint tensor, or to one expert's matrix of it. No element is read before the graph is
/// written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Weight {
    pub(crate) tensor: String,
    /// Shape in the checkpoint.
    pub(crate) stored: Vec<usize>,
    pub(crate) expert: Option<usize>,
    pub(crate) transposed: bool,
    pub(crate) encoding: Encoding,
}

/// How a weight's elements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    /// One by one.
    Float(ElementType),
    /// As codes with a scale per group of inputs of the product. The weight is a matrix.
    Quantized(Scheme, Groups),
    /// In panels, as our own operators read them: one matrix, or those of all experts.
    Panels(Panels),
}

/// How the groups of a quantized matrix lie in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Groups {
    /// For `DequantizeLinear`: codes `[inputs, outputs]`, scales `[groups, outputs]`.
    AlongColumns,
    /// For `MatMulNBits`: codes `[outputs, groups, bytes of a group]`, scales `[outputs, groups]`. Codes have no sign:
    /// without zero points 0 is the middle of their range.
    AlongRows,
}

/// Element type of codes.
fn code_element(scheme: &Scheme, signed: bool) -> ElementType {
    match (scheme.bits, signed) {
        (Bits::Four, true) => ElementType::Int4,
        (Bits::Four, false) => ElementType::UInt4,
        (Bits::Eight, true) => ElementType::Int8,
        (Bits::Eight, false) => ElementType::UInt8,
    }
}

/// One of the tensors that a weight is written as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) element: ElementType,
    pub(crate) shape: Vec<usize>,
}

impl Part {
    /// Size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.element.bytes(self.shape.iter().map(|size| *size as u64).product())
    }
}

impl Weight {
    /// A whole tensor, as float32.
    pub fn new(tensor: String, shape: Vec<usize>) -> Self {
        let encoding = Encoding::Float(ElementType::Float32);
        Weight { tensor, stored: shape, expert: None, transposed: false, encoding }
    }

    /// One expert's matrix of a tensor `[experts, rows, columns]`.
    pub fn of_expert(mut self, expert: usize) -> Self {
        self.expert = Some(expert);
        self
    }

    /// A matrix with rows and columns exchanged: checkpoints store `[out, in]`, `MatMul` takes `[in, out]`.
    pub fn transposed(mut self) -> Self {
        self.transposed = !self.transposed;
        self
    }

    pub(crate) fn encoded(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// Name of the checkpoint tensor.
    pub fn tensor(&self) -> &str {
        &self.tensor
    }

    /// Which expert's matrix of the tensor, if it is one's.
    pub fn expert(&self) -> Option<usize> {
        self.expert
    }

    /// How it is quantized; `None` if it is not.
    pub fn scheme(&self) -> Option<Scheme> {
        match self.encoding {
            Encoding::Float(_) => None,
            Encoding::Quantized(scheme, _) => Some(scheme),
            Encoding::Panels(panels) => panels.scheme(),
        }
    }

    /// The type its elements are stored in.
    pub fn storage(&self) -> WeightStorage {
        match self.encoding {
            Encoding::Float(ElementType::Float16) => WeightStorage::F16,
            Encoding::Float(ElementType::BFloat16) => WeightStorage::Bf16,
            Encoding::Float(_) => WeightStorage::F32,
            Encoding::Quantized(scheme, _) => match scheme.bits {
                Bits::Four => WeightStorage::Int4,
                Bits::Eight => WeightStorage::Int8,
            },
            Encoding::Panels(panels) => panels.storage(),
        }
    }

    /// Rows and columns of a matrix as the checkpoint stores it, `[outputs, inputs]`, however the graph's layout turns it.
    pub fn matrix(&self) -> Option<[usize; 2]> {
        self.stored[usize::from(self.expert.is_some())..].try_into().ok()
    }

    /// The matrices that it is made of, each of them a weight: those of all experts where they are stored as one, else
    /// itself.
    pub fn matrices(&self) -> Vec<Weight> {
        match (self.encoding, self.stored.as_slice(), self.expert) {
            (Encoding::Panels(_), [experts, _, _], None) => {
                (0..*experts).map(|expert| self.clone().of_expert(expert)).collect()
            }
            _ => vec![self.clone()],
        }
    }

    /// Its elements in the checkpoint: the whole tensor, or the expert's matrix of it, as stored.
    ///
    /// # Errors
    /// A tensor that the checkpoint does not have in this shape, or an expert that it does not have.
    pub fn view<'a>(&self, checkpoint: &'a Checkpoint) -> Result<TensorView<'a>> {
        let tensor = checkpoint.tensor(&self.tensor, &self.stored)?;
        let Some(expert) = self.expert else { return Ok(tensor) };
        tensor.slice_first(expert).ok_or_else(|| Error::NoSuchExpert {
            tensor: self.tensor.clone(),
            expert,
            experts: self.stored.first().copied().unwrap_or(0),
        })
    }

    /// Name and shape of the checkpoint tensor.
    pub(crate) fn stored(&self) -> (String, Vec<usize>) {
        (self.tensor.clone(), self.stored.clone())
    }

    /// Name in the graph: that of the tensor, with the expert's number and `.T` where they apply.
    pub fn name(&self) -> String {
        let mut name = self.tensor.clone();
        if let Some(expert) = self.expert {
            name.push_str(&format!(".{expert}"));
        }
        if self.transposed {
            name.push_str(".T");
        }
        name
    }

    /// Shape in the graph.
    pub fn shape(&self) -> Vec<usize> {
        let mut shape = self.stored[usize::from(self.expert.is_some())..].to_vec();
        if self.transposed {
            shape.reverse();
        }
        shape
    }

    /// The tensors it is written as: itself, or codes, scales and perhaps zero points.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let (name, shape) = (self.name(), self.shape());
        let (scheme, groups) = match self.encoding {
            Encoding::Float(element) => return vec![Part { name, element, shape }],
            Encoding::Panels(panels) => return panels.parts(&name),
            Encoding::Quantized(scheme, groups) => (scheme, groups),
        };
        let scale = match scheme.scales {
            Scales::Float32 => ElementType::Float32,
            Scales::Float16 => ElementType::Float16,
        };
        let part = |suffix: &str, element, shape| Part { name: format!("{name}.{suffix}"), element, shape };
        if let (Groups::AlongRows, [outputs, inputs]) = (groups, shape.as_slice()) {
            let count = scheme.groups(*inputs);
            let bytes = |codes: usize| code_element(&scheme, false).bytes(codes as u64) as usize;
            let codes = vec![*outputs, count, bytes(scheme.group_size)];
            let mut parts =
                vec![part("codes", ElementType::UInt8, codes), part("scales", scale, vec![*outputs, count])];
            if scheme.zero_points {
                parts.push(part("zero_points", ElementType::UInt8, vec![*outputs, bytes(count)]));
            }
            return parts;
        }
        let codes = code_element(&scheme, !scheme.zero_points);
        let mut groups = shape.clone();
        if let Some(inputs) = groups.first_mut() {
            *inputs = scheme.groups(*inputs);
        }
        let mut parts = vec![part("codes", codes, shape), part("scales", scale, groups.clone())];
        if scheme.zero_points {
            parts.push(part("zero_points", codes, groups));
        }
        parts
    }
}
