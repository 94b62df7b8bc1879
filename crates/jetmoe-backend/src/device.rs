//! Where a model computes.

mod options;

use std::fmt;
use std::str::FromStr;

use jetmoe_artifact::{Precision, Profile};

pub use self::options::{
    CudaOptions, OpenVinoDevice, OpenVinoOptions, OpenVinoPrecision, ProviderOption, TensorRtOptions,
    TokenShape,
};

use crate::{Error, Result};

/// Where a model computes, with the options of that device. Every device but the CPU is ONNX Runtime's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Device {
    /// The processor, with the backend's own kernels. The default.
    #[default]
    Cpu,
    /// An NVIDIA GPU, with ONNX Runtime's kernels.
    Cuda(CudaOptions),
    /// An NVIDIA GPU, with engines that TensorRT builds; what it does not take is computed as by [`Device::Cuda`].
    TensorRt(TensorRtOptions),
    /// An Intel processor, GPU or NPU, with OpenVINO.
    OpenVino(OpenVinoOptions),
    /// The first of [`Device::auto_order`] that is usable.
    Auto,
}

/// The forms that [`Device`] reads.
const FORMS: &str = "cpu, cuda[:N], tensorrt[:N], openvino[:CPU|GPU|GPU.N|NPU|AUTO] or auto";

impl Device {
    /// What [`Device::Auto`] tries, in this order: an NVIDIA GPU, the CPU.
    ///
    /// TensorRT is not in it, as it takes minutes to build its engines, and builds them again when texts grow. OpenVINO
    /// is not, as on a CPU it takes longer to load and, token by token, longer to compute than ONNX Runtime itself.
    pub fn auto_order() -> [Device; 2] {
        [Device::Cuda(CudaOptions::default()), Device::Cpu]
    }

    /// The execution provider that it needs, if any.
    pub fn provider(&self) -> Option<ExecutionProvider> {
        match self {
            Device::Cpu | Device::Auto => None,
            Device::Cuda(_) => Some(ExecutionProvider::Cuda),
            Device::TensorRt(_) => Some(ExecutionProvider::TensorRt),
            Device::OpenVino(_) => Some(ExecutionProvider::OpenVino),
        }
    }

    /// Whether it can run graphs of a precision and a profile at all. The custom operators compute on the CPU, and OpenVINO
    /// refuses the operators around them. ONNX Runtime's provider for OpenVINO takes no bfloat16 tensor; a float32 graph
    /// with [`OpenVinoOptions::precision`] computes in bfloat16 there.
    pub fn runs(&self, precision: Precision, profile: Profile) -> bool {
        let has_operators = profile != Profile::Native || *self == Device::Cpu;
        has_operators
            && (self.provider() != Some(ExecutionProvider::OpenVino) || precision != Precision::Bf16)
    }

    /// The same device with options set by name, as in `fp16=true`; a later one replaces an earlier one.
    ///
    /// # Errors
    /// [`Error::ProviderOption`] for an option that the device does not have, or a value that it cannot have.
    pub fn with_options(mut self, options: &[ProviderOption]) -> Result<Self> {
        for option in options {
            options::set(&mut self, option)?;
        }
        Ok(self)
    }

    /// Refuses options that contradict each other.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub fn check(&self) -> Result<()> {
        match self {
            Device::TensorRt(options) => options.check_shapes(),
            Device::OpenVino(OpenVinoOptions { threads: Some(0), .. }) => {
                Err(Error::Option { option: "threads", found: "0".to_owned(), expected: "at least 1" })
            }
            _ => Ok(()),
        }
    }

    /// A backend's version followed by the device, as in `1.24.1 (openvino CPU)`; for the CPU the version alone.
    pub fn describe(&self, version: &str) -> String {
        match self {
            Device::Cpu | Device::Auto => version.to_owned(),
            Device::Cuda(_) | Device::TensorRt(_) => format!("{version} ({self})"),
            Device::OpenVino(options) => format!("{version} (openvino {})", options.device),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(options) => write!(f, "cuda:{}", options.device_id),
            Device::TensorRt(options) => write!(f, "tensorrt:{}", options.device_id),
            Device::OpenVino(options) => write!(f, "openvino:{}", options.device),
            Device::Auto => f.write_str("auto"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::Syntax { text: text.to_owned(), what: "device", expected: FORMS };
        let (name, which) = match text.split_once(':') {
            Some((name, which)) => (name, Some(which)),
            None => (text, None),
        };
        let number = || which.map_or(Ok(0), |which| which.parse().map_err(|_| unknown()));
        match (name, which) {
            ("cpu", None) => Ok(Device::Cpu),
            ("auto", None) => Ok(Device::Auto),
            ("cuda", _) => Ok(Device::Cuda(CudaOptions { device_id: number()?, ..CudaOptions::default() })),
            ("tensorrt", _) => {
                Ok(Device::TensorRt(TensorRtOptions { device_id: number()?, ..TensorRtOptions::default() }))
            }
            ("openvino", which) => {
                let device = which.map_or(Ok(OpenVinoDevice::default()), |which| {
                    OpenVinoDevice::parse(which).ok_or_else(unknown)
                })?;
                Ok(Device::OpenVino(OpenVinoOptions { device, ..OpenVinoOptions::default() }))
            }
            _ => Err(unknown()),
        }
    }
}

/// A part of ONNX Runtime that computes on a device. It is a shared library of its own, and not every build of ONNX
/// Runtime carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum ExecutionProvider {
    /// NVIDIA's CUDA and cuDNN.
    Cuda,
    /// NVIDIA's TensorRT.
    TensorRt,
    /// Intel's OpenVINO.
    OpenVino,
}

impl ExecutionProvider {
    /// Every provider that this crate uses, in addition to the CPU's.
    pub const ALL: &'static [ExecutionProvider] =
        &[ExecutionProvider::Cuda, ExecutionProvider::TensorRt, ExecutionProvider::OpenVino];

    /// ONNX Runtime's name for it, as in `CUDAExecutionProvider`.
    pub fn onnxruntime_name(self) -> &'static str {
        match self {
            ExecutionProvider::Cuda => "CUDAExecutionProvider",
            ExecutionProvider::TensorRt => "TensorrtExecutionProvider",
            ExecutionProvider::OpenVino => "OpenVINOExecutionProvider",
        }
    }

    /// The Python package whose libonnxruntime has it.
    pub fn package(self) -> &'static str {
        match self {
            ExecutionProvider::Cuda | ExecutionProvider::TensorRt => "onnxruntime-gpu",
            ExecutionProvider::OpenVino => "onnxruntime-openvino",
        }
    }

    /// What follows the version in the name of the library's folder in the project's cache.
    pub fn cache_suffix(self) -> &'static str {
        match self {
            ExecutionProvider::Cuda | ExecutionProvider::TensorRt => "-gpu",
            ExecutionProvider::OpenVino => "-openvino",
        }
    }

    /// What else the machine must have.
    pub fn needs(self) -> &'static str {
        match self {
            ExecutionProvider::Cuda => "an NVIDIA GPU with its driver (libcuda), CUDA 13 and cuDNN 9",
            ExecutionProvider::TensorRt => {
                "an NVIDIA GPU with its driver (libcuda), CUDA 13, cuDNN 9 and TensorRT 10"
            }
            ExecutionProvider::OpenVino => "an Intel processor, or for GPU and NPU Intel's driver",
        }
    }
}

#[cfg(test)]
mod tests;
