//! Weights as references into a checkpoint: which tensor, which part of it, and how it is written.

use jetmoe_checkpoint::{Checkpoint, TensorView};
use jetmoe_format::{ElementType, Encoding, Scheme, TensorSpec, WeightFormat};

use crate::{Error, Result};

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
        self.encoding.scheme()
    }

    /// The format of its elements.
    pub fn format(&self) -> WeightFormat {
        self.encoding.format()
    }

    /// Rows and columns of a matrix as the checkpoint stores it, `[outputs, inputs]`, whether or not the graph transposes it.
    pub fn matrix(&self) -> Option<[usize; 2]> {
        self.stored[usize::from(self.expert.is_some())..].try_into().ok()
    }

    /// The matrices that it is made of, each of them a weight: those of all experts where they are quantized or packed together,
    /// else itself.
    pub fn matrices(&self) -> Vec<Weight> {
        match (self.encoding, self.stored.as_slice(), self.expert) {
            (Encoding::Packed(_) | Encoding::Grouped(..), [experts, _, _], None) => {
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

    /// The tensors it is written as.
    pub(crate) fn tensors(&self) -> Vec<TensorSpec> {
        self.encoding.tensors(&self.shape())
    }
}
