//! The checkpoint's weights as float32 tensors.

use candle_core::{DType, Device, Tensor};
use candle_nn::Linear;
use jetmoe_checkpoint::{Checkpoint, Dtype, ModelConfig};

use crate::experts::ExpertLinear;
use crate::norm::RmsNorm;
use crate::{Error, Result};

/// Values that replace a checkpoint's weights, for example dequantized ones.
pub trait WeightOverrides {
    /// The tensor of that name, row-major; `None` for the checkpoint's own.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn tensor(
        &self,
        name: &str,
        shape: &[usize],
    ) -> Result<Option<Vec<f32>>, Box<dyn std::error::Error + Send + Sync>>;
}

/// Loads weights of a checkpoint, or their overrides, as float32 tensors.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) overrides: Option<&'a dyn WeightOverrides>,
}

impl Weights<'_> {
    pub(crate) fn config(&self) -> &ModelConfig {
        self.checkpoint.config()
    }

    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let values = self.overrides.map_or(Ok(None), |overrides| overrides.tensor(name, shape));
        let values = values.map_err(|source| Error::Override { tensor: name.to_owned(), source })?;
        if let Some(values) = values {
            return Tensor::from_vec(values, shape, &Device::Cpu).map_err(Error::at(name));
        }
        let view = self.checkpoint.tensor(name, shape)?;
        let dtype = match view.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::Bf16 => DType::BF16,
            Dtype::F64 => DType::F64,
        };
        Tensor::from_raw_buffer(view.bytes, dtype, view.shape, &Device::Cpu)
            .and_then(|stored| stored.to_dtype(DType::F32))
            .map_err(Error::at(name))
    }

    pub(crate) fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear> {
        Ok(Linear::new(self.tensor(name, &[outputs, inputs])?, None))
    }

    pub(crate) fn experts(&self, name: &str, outputs: usize, inputs: usize) -> Result<ExpertLinear> {
        let weight = self.tensor(name, &[self.config().num_local_experts, outputs, inputs])?;
        Ok(ExpertLinear::new(name, weight))
    }

    pub(crate) fn norm(&self, name: &str, epsilon: f64) -> Result<RmsNorm> {
        Ok(RmsNorm::new(self.tensor(name, &[self.config().hidden_size])?, epsilon))
    }
}
