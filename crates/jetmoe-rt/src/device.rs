//! Where a model computes.

mod options;
mod setting;

use std::fmt;
use std::str::FromStr;

use jetmoe_artifact::{Precision, Profile};

pub use self::options::{
    CudaOptions, OpenVinoDevice, OpenVinoOptions, OpenVinoPrecision, TensorRtOptions, TokenShape,
};
pub use self::setting::ProviderOption;

use self::setting::apply;
use crate::{Error, Result};

/// Where a model computes, with what that device can be told. Every device but the CPU is ONNX Runtime's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Device {
    /// The processor, with the runtime's own kernels. The default.
    #[default]
    Cpu,
    /// An NVIDIA GPU, with ONNX Runtime's kernels.
    Cuda(CudaOptions),
    /// An NVIDIA GPU, with engines that TensorRT builds; what it does not take is computed as by [`Device::Cuda`].
    TensorRt(TensorRtOptions),
    /// An Intel processor, GPU or NPU, with OpenVINO.
    OpenVino(OpenVinoOptions),
    /// The first of [`Device::auto_order`] that can be had.
    Auto,
}

/// The forms that [`Device`] reads.
pub(crate) const FORMS: &str = "cpu, cuda[:N], tensorrt[:N], openvino[:CPU|GPU|GPU.N|NPU|AUTO] or auto";

impl Device {
    /// What [`Device::Auto`] tries, in this order: an NVIDIA GPU, the CPU.
    ///
    /// TensorRT is not in it, as it takes minutes to build its engines, and builds them again when texts grow. OpenVINO
    /// is not, as on a CPU it takes longer to load and, token by token, longer to compute than ONNX Runtime itself.
    pub fn auto_order() -> [Device; 2] {
        [Device::Cuda(CudaOptions::default()), Device::Cpu]
    }

    /// The execution provider that it needs, if any.
    pub fn provider(&self) -> Option<Provider> {
        match self {
            Device::Cpu | Device::Auto => None,
            Device::Cuda(_) => Some(Provider::Cuda),
            Device::TensorRt(_) => Some(Provider::TensorRt),
            Device::OpenVino(_) => Some(Provider::OpenVino),
        }
    }

    /// Whether it can run graphs of a precision and a profile at all. Our own operators compute on the CPU, and OpenVINO
    /// refuses what stands around them. ONNX Runtime's provider for OpenVINO takes no bfloat16 tensor; a float32 graph
    /// with [`OpenVinoOptions::precision`] computes in bfloat16 there.
    pub fn runs(&self, precision: Precision, profile: Profile) -> bool {
        let has_operators = profile != Profile::Native || *self == Device::Cpu;
        has_operators && (self.provider() != Some(Provider::OpenVino) || precision != Precision::Bf16)
    }

    /// The same device with options set by name, as in `fp16=true`; a later one replaces an earlier one.
    ///
    /// # Errors
    /// [`Error::ProviderOption`] for an option that the device does not have, or a value that it cannot have.
    pub fn with_options(mut self, options: &[ProviderOption]) -> Result<Self> {
        for option in options {
            match &mut self {
                Device::Cpu | Device::Auto => {
                    let expected = match self {
                        Device::Auto => "no option, as it is open which device is taken; name the device",
                        _ => "no option",
                    };
                    return Err(option.refused(&self, expected.to_owned()));
                }
                Device::Cuda(cuda) => apply(cuda, option).map_err(|why| option.refused(&self, why))?,
                Device::TensorRt(tensorrt) => {
                    apply(tensorrt, option).map_err(|why| option.refused(&self, why))?;
                }
                Device::OpenVino(openvino) => {
                    apply(openvino, option).map_err(|why| option.refused(&self, why))?;
                }
            }
        }
        Ok(self)
    }

    /// Refuses options that contradict each other.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Device::TensorRt(options) => options.check_shapes(),
            Device::OpenVino(OpenVinoOptions { threads: Some(0), .. }) => {
                Err(Error::Option { option: "threads", found: "0".to_owned(), expected: "at least 1" })
            }
            _ => Ok(()),
        }
    }

    /// A runtime's version with the device behind it, as in `1.24.1 (openvino CPU)`; for the CPU alone as it is.
    #[cfg(any(feature = "ort", test))]
    pub(crate) fn beside(&self, version: &str) -> String {
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
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("unknown device {text:?}; expected {FORMS}");
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// NVIDIA's CUDA and cuDNN.
    Cuda,
    /// NVIDIA's TensorRT.
    TensorRt,
    /// Intel's OpenVINO.
    OpenVino,
}

impl Provider {
    /// Every provider that this crate uses, beside the CPU's.
    pub const ALL: &'static [Provider] = &[Provider::Cuda, Provider::TensorRt, Provider::OpenVino];

    /// ONNX Runtime's name for it, as in `CUDAExecutionProvider`.
    pub fn onnxruntime_name(self) -> &'static str {
        match self {
            Provider::Cuda => "CUDAExecutionProvider",
            Provider::TensorRt => "TensorrtExecutionProvider",
            Provider::OpenVino => "OpenVINOExecutionProvider",
        }
    }

    /// The Python package whose libonnxruntime has it.
    pub fn package(self) -> &'static str {
        match self {
            Provider::Cuda | Provider::TensorRt => "onnxruntime-gpu",
            Provider::OpenVino => "onnxruntime-openvino",
        }
    }

    /// The project's own way to fetch that library.
    pub fn setup(self) -> &'static str {
        match self {
            Provider::Cuda | Provider::TensorRt => "cargo xtask setup --gpu",
            Provider::OpenVino => "cargo xtask setup --openvino",
        }
    }

    /// What follows the version in the name of the library's folder in the project's cache.
    pub(crate) fn cache_suffix(self) -> &'static str {
        match self {
            Provider::Cuda | Provider::TensorRt => "-gpu",
            Provider::OpenVino => "-openvino",
        }
    }

    /// What else the machine must have.
    pub fn needs(self) -> &'static str {
        match self {
            Provider::Cuda => "an NVIDIA GPU with its driver (libcuda), CUDA 13 and cuDNN 9",
            Provider::TensorRt => "an NVIDIA GPU with its driver (libcuda), CUDA 13, cuDNN 9 and TensorRT 10",
            Provider::OpenVino => "an Intel processor, or for GPU and NPU Intel's driver",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Provider::Cuda => "cuda",
            Provider::TensorRt => "tensorrt",
            Provider::OpenVino => "openvino",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(device: &str, options: &[&str]) -> Result<Device> {
        let options: Vec<ProviderOption> = options.iter().map(|option| option.parse().unwrap()).collect();
        device.parse::<Device>().unwrap().with_options(&options)
    }

    #[test]
    fn a_device_reads_back_as_itself() {
        for text in ["cpu", "cuda:1", "tensorrt:0", "openvino:CPU", "openvino:GPU.1", "openvino:NPU", "auto"]
        {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        for (short, long) in [("cuda", "cuda:0"), ("tensorrt", "tensorrt:0"), ("openvino", "openvino:CPU")] {
            assert_eq!(short.parse::<Device>(), long.parse());
        }
    }

    #[test]
    fn another_device_is_refused_with_the_forms_there_are() {
        for text in ["gpu", "cuda:", "cuda:first", "cuda:-1", "cpu:0", "openvino:TPU", "openvino:GPU.x", ""] {
            let why = text.parse::<Device>().unwrap_err();
            assert_eq!(why, format!("unknown device {text:?}; expected {FORMS}"));
        }
    }

    #[test]
    fn options_are_set_by_name() {
        let openvino = with("openvino", &["precision=bf16", "threads=2", "cache=/tmp/cache"]).unwrap();
        let Device::OpenVino(options) = openvino else { panic!("{openvino}") };
        assert_eq!((options.precision, options.threads), (OpenVinoPrecision::Bf16, Some(2)));
        assert_eq!(options.cache.unwrap().to_str(), Some("/tmp/cache"));
        let cuda = with("cuda:2", &["memory_limit=4294967296", "tf32=true"]).unwrap();
        assert_eq!(cuda, Device::Cuda(CudaOptions { device_id: 2, memory_limit: Some(1 << 32), tf32: true }));
    }

    #[test]
    fn an_option_that_the_device_does_not_have_is_refused_with_those_it_has() {
        let message = with("cuda", &["precision=bf16"]).unwrap_err().to_string();
        assert_eq!(
            message,
            "the provider option precision=bf16 cannot be used with cuda:0\n  \
             expected memory_limit=BYTES or tf32=true|false"
        );
        let message = with("auto", &["tf32=true"]).unwrap_err().to_string();
        assert!(message.contains("name the device"), "{message}");
        assert!(with("cpu", &["threads=1"]).is_err());
    }

    #[test]
    fn a_value_that_an_option_cannot_have_is_refused_with_its_form() {
        for (device, option, form) in [
            ("cuda", "memory_limit=4 GB", "memory_limit=BYTES"),
            ("cuda", "memory_limit=0", "memory_limit=BYTES"),
            ("tensorrt", "fp16=yes", "fp16=true|false"),
            ("tensorrt", "shapes_min=1x16", "shapes_min=BATCHxNEWxPAST"),
            ("openvino", "precision=f64", "precision=f32|bf16|f16"),
            ("openvino", "threads=0", "threads=N, at least 1"),
            ("openvino", "cache=", "cache=FOLDER"),
        ] {
            let message = with(device, &[option]).unwrap_err().to_string();
            assert!(message.ends_with(&format!("expected {form}")), "{message}");
        }
    }

    #[test]
    fn shapes_come_as_three_that_grow() {
        let shapes = |options: &[&str]| with("tensorrt", options).unwrap().check();
        let (min, opt, max) = ("shapes_min=1x1x0", "shapes_opt=1x16x128", "shapes_max=4x512x511");
        shapes(&[]).unwrap();
        shapes(&[min, opt, max]).unwrap();
        for wrong in [&[min][..], &[opt, max], &[min, max], &[min, "shapes_opt=8x1x0", max]] {
            assert!(matches!(shapes(wrong), Err(Error::Option { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn a_runtime_says_its_device_unless_it_is_the_cpu() {
        let beside = |device: &str| device.parse::<Device>().unwrap().beside("1.2.3");
        assert_eq!(beside("cpu"), "1.2.3");
        assert_eq!(beside("openvino"), "1.2.3 (openvino CPU)");
        assert_eq!(beside("cuda"), "1.2.3 (cuda:0)");
    }
}
