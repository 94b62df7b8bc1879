use candle_core::{DType, Device, Tensor};
use candle_nn::Linear;
use jetmoe_checkpoint::{Checkpoint, Dtype, ModelConfig};

use crate::experts::ExpertLinear;
use crate::norm::RmsNorm;
use crate::{Error, Result};

/// Weights that take the place of a checkpoint's own, such as those that rounding has made of them.
pub trait ReplacedWeights {
    /// The tensor of that name, row-major; `None` to keep the checkpoint's.
    ///
    /// # Errors
    /// Whatever kept it from being read.
    fn tensor(
        &self,
        name: &str,
        shape: &[usize],
    ) -> Result<Option<Vec<f32>>, Box<dyn std::error::Error + Send + Sync>>;
}

/// The checkpoint's weights as float32 tensors.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) replaced: Option<&'a dyn ReplacedWeights>,
}

impl Weights<'_> {
    pub(crate) fn config(&self) -> &ModelConfig {
        self.checkpoint.config()
    }

    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let replaced = self.replaced.map_or(Ok(None), |replaced| replaced.tensor(name, shape));
        let replaced = replaced.map_err(|source| Error::Replaced { tensor: name.to_owned(), source })?;
        if let Some(values) = replaced {
            return Tensor::from_vec(values, shape, &Device::Cpu).map_err(Error::at(name));
        }
        let view = self.checkpoint.tensor(name, shape)?;
        let dtype = match view.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::Bf16 => DType::BF16,
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
