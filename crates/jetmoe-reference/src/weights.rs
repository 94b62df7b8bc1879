use candle_core::{DType, Device, Tensor};
use candle_nn::Linear;
use jetmoe_checkpoint::{Checkpoint, Dtype, ModelConfig};

use crate::experts::ExpertLinear;
use crate::norm::RmsNorm;
use crate::{Error, Result};

/// The checkpoint's weights as float32 tensors.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) checkpoint: &'a Checkpoint,
}

impl Weights<'_> {
    pub(crate) fn config(&self) -> &ModelConfig {
        self.checkpoint.config()
    }

    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
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
