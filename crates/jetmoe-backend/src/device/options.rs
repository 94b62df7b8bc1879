//! Options of each device, typed and by name.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::Device;
use crate::{Error, Result};

/// An option of a device as a user writes it: `name=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderOption {
    name: String,
    value: String,
}

impl fmt::Display for ProviderOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

impl FromStr for ProviderOption {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some((name, value)) => Ok(ProviderOption { name: name.to_owned(), value: value.to_owned() }),
            None => {
                Err(Error::Syntax { text: text.to_owned(), what: "provider option", expected: "NAME=VALUE" })
            }
        }
    }
}

/// Options of [`Device::Cuda`](super::Device::Cuda).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CudaOptions {
    /// Which GPU, as CUDA counts them from 0; 0 by default.
    pub device_id: u32,
    /// Bytes that ONNX Runtime's arena may take on the GPU, at least 1; `None`, the default, sets no limit. What CUDA and
    /// cuDNN take themselves comes on top.
    pub memory_limit: Option<u64>,
    /// Whether float32 products may be rounded to TensorFloat-32, which keeps 11 bits. False by default, although ONNX
    /// Runtime's own default is true: results are then beyond the float32 tolerance.
    pub tf32: bool,
}

/// Options of [`Device::TensorRt`](super::Device::TensorRt).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TensorRtOptions {
    /// Which GPU, as CUDA counts them from 0; 0 by default.
    pub device_id: u32,
    /// Whether layers may compute in float16 where the graph says float32. False by default.
    pub fp16: bool,
    /// Folder where built engines are kept and found again, which saves minutes per load; `None`, the default, builds them
    /// for each load. An engine serves one GPU model and one version of TensorRT.
    pub engine_cache: Option<PathBuf>,
    /// Folder where the timings of layers are kept, which makes other engines quicker to build; `None`, the default, keeps
    /// none.
    pub timing_cache: Option<PathBuf>,
    /// The smallest inputs that the engines must take. `None`, the default for all three shapes, has ONNX Runtime build
    /// engines for the inputs it sees and build them again when larger ones come. Either all three are given or none.
    pub shapes_min: Option<TokenShape>,
    /// The inputs that the engines are tuned for.
    pub shapes_opt: Option<TokenShape>,
    /// The largest inputs that the engines must take.
    pub shapes_max: Option<TokenShape>,
}

/// Options of [`Device::OpenVino`](super::Device::OpenVino).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct OpenVinoOptions {
    /// Which of OpenVINO's devices; the CPU by default.
    pub device: OpenVinoDevice,
    /// What float32 may be rounded to on the way, as OpenVINO's `INFERENCE_PRECISION_HINT`; float32 by default. A hint
    /// that the hardware has no arithmetic for is ignored by OpenVINO.
    pub precision: OpenVinoPrecision,
    /// Folder where compiled graphs are kept and found again; `None`, the default, compiles for each load.
    pub cache: Option<PathBuf>,
    /// Threads, at least 1. `None`, the default, is [`LoadOptions::threads`](crate::LoadOptions::threads), and without
    /// that OpenVINO's own choice.
    pub threads: Option<usize>,
}

impl CudaOptions {
    /// Sets [`CudaOptions::device_id`].
    #[must_use]
    pub fn with_device_id(mut self, device_id: u32) -> Self {
        self.device_id = device_id;
        self
    }

    /// Sets [`CudaOptions::memory_limit`].
    #[must_use]
    pub fn with_memory_limit(mut self, memory_limit: impl Into<Option<u64>>) -> Self {
        self.memory_limit = memory_limit.into();
        self
    }

    /// Sets [`CudaOptions::tf32`].
    #[must_use]
    pub fn with_tf32(mut self, tf32: bool) -> Self {
        self.tf32 = tf32;
        self
    }
}

impl TensorRtOptions {
    /// Sets [`TensorRtOptions::device_id`].
    #[must_use]
    pub fn with_device_id(mut self, device_id: u32) -> Self {
        self.device_id = device_id;
        self
    }

    /// Sets [`TensorRtOptions::fp16`].
    #[must_use]
    pub fn with_fp16(mut self, fp16: bool) -> Self {
        self.fp16 = fp16;
        self
    }

    /// Sets [`TensorRtOptions::engine_cache`].
    #[must_use]
    pub fn with_engine_cache(mut self, engine_cache: impl Into<PathBuf>) -> Self {
        self.engine_cache = Some(engine_cache.into());
        self
    }

    /// Sets [`TensorRtOptions::timing_cache`].
    #[must_use]
    pub fn with_timing_cache(mut self, timing_cache: impl Into<PathBuf>) -> Self {
        self.timing_cache = Some(timing_cache.into());
        self
    }

    /// Sets [`TensorRtOptions::shapes_min`], [`TensorRtOptions::shapes_opt`] and [`TensorRtOptions::shapes_max`].
    #[must_use]
    pub fn with_shapes(mut self, min: TokenShape, opt: TokenShape, max: TokenShape) -> Self {
        (self.shapes_min, self.shapes_opt, self.shapes_max) = (Some(min), Some(opt), Some(max));
        self
    }
}

impl OpenVinoOptions {
    /// Sets [`OpenVinoOptions::device`].
    #[must_use]
    pub fn with_device(mut self, device: OpenVinoDevice) -> Self {
        self.device = device;
        self
    }

    /// Sets [`OpenVinoOptions::precision`].
    #[must_use]
    pub fn with_precision(mut self, precision: OpenVinoPrecision) -> Self {
        self.precision = precision;
        self
    }

    /// Sets [`OpenVinoOptions::cache`].
    #[must_use]
    pub fn with_cache(mut self, cache: impl Into<PathBuf>) -> Self {
        self.cache = Some(cache.into());
        self
    }

    /// Sets [`OpenVinoOptions::threads`].
    #[must_use]
    pub fn with_threads(mut self, threads: impl Into<Option<usize>>) -> Self {
        self.threads = threads.into();
        self
    }
}

/// A device of OpenVINO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OpenVinoDevice {
    /// The processor.
    #[default]
    Cpu,
    /// Intel's GPU, by its number where there are several.
    Gpu(Option<u32>),
    /// The neural processing unit.
    Npu,
    /// OpenVINO's own choice.
    Auto,
}

impl OpenVinoDevice {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "CPU" => Some(OpenVinoDevice::Cpu),
            "GPU" => Some(OpenVinoDevice::Gpu(None)),
            "NPU" => Some(OpenVinoDevice::Npu),
            "AUTO" => Some(OpenVinoDevice::Auto),
            other => Some(OpenVinoDevice::Gpu(Some(other.strip_prefix("GPU.")?.parse().ok()?))),
        }
    }
}

impl fmt::Display for OpenVinoDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenVinoDevice::Cpu => f.write_str("CPU"),
            OpenVinoDevice::Gpu(None) => f.write_str("GPU"),
            OpenVinoDevice::Gpu(Some(number)) => write!(f, "GPU.{number}"),
            OpenVinoDevice::Npu => f.write_str("NPU"),
            OpenVinoDevice::Auto => f.write_str("AUTO"),
        }
    }
}

/// Number format that OpenVINO may compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, strum::Display, strum::EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum OpenVinoPrecision {
    /// Float32, as the graph says.
    #[default]
    F32,
    /// Bfloat16, which keeps 8 bits; for processors with AMX.
    Bf16,
    /// Float16, which keeps 11 bits; for GPUs and NPUs.
    F16,
}

const SHAPE_FORM: &str = "BATCHxNEWxPAST";

/// Sizes of one step's inputs, written `1x16x128`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenShape {
    /// Sequences, at least 1.
    pub batch_size: usize,
    /// New tokens per sequence, at least 1.
    pub new_tokens: usize,
    /// Cached tokens per sequence.
    pub past_tokens: usize,
}

impl TokenShape {
    fn fits_in(&self, larger: &TokenShape) -> bool {
        self.batch_size <= larger.batch_size
            && self.new_tokens <= larger.new_tokens
            && self.past_tokens <= larger.past_tokens
    }
}

impl fmt::Display for TokenShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.batch_size, self.new_tokens, self.past_tokens)
    }
}

impl FromStr for TokenShape {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let sizes: Option<Vec<usize>> = text.split('x').map(|size| size.parse().ok()).collect();
        match sizes.as_deref() {
            Some(&[batch_size, new_tokens, past_tokens]) if batch_size > 0 && new_tokens > 0 => {
                Ok(TokenShape { batch_size, new_tokens, past_tokens })
            }
            _ => Err(Error::Syntax { text: text.to_owned(), what: "shape", expected: SHAPE_FORM }),
        }
    }
}

impl TensorRtOptions {
    /// The three shapes, smallest first, where they are given.
    pub fn shapes(&self) -> Option<[TokenShape; 3]> {
        Some([self.shapes_min?, self.shapes_opt?, self.shapes_max?])
    }

    pub(super) fn check_shapes(&self) -> Result<()> {
        let given = [self.shapes_min, self.shapes_opt, self.shapes_max];
        let fits = match self.shapes() {
            Some([min, opt, max]) => min.fits_in(&opt) && opt.fits_in(&max),
            None => given.iter().all(Option::is_none),
        };
        if fits {
            return Ok(());
        }
        let found =
            given.map(|shape| shape.map_or_else(|| "not given".to_owned(), |shape| shape.to_string()));
        Err(Error::Option {
            option: "shapes_min, shapes_opt, shapes_max",
            found: found.join(", "),
            expected: "all three, none of their sizes smaller than in the one before",
        })
    }
}

/// Sets an option of a device by name.
///
/// # Errors
/// [`Error::ProviderOption`] for an option that the device does not have, or a value that the option cannot have.
pub(super) fn set(device: &mut Device, option: &ProviderOption) -> Result<()> {
    let ProviderOption { name, value } = option;
    let set = match device {
        Device::Cpu | Device::Auto => None,
        Device::Cuda(options) => options.set(name, value),
        Device::TensorRt(options) => options.set(name, value),
        Device::OpenVino(options) => options.set(name, value),
    };
    let refused = || Error::ProviderOption {
        option: option.to_string(),
        device: device.to_string(),
        expected: expected(device, name),
    };
    set.ok_or_else(refused)
}

/// The form of an option; of a name that the device does not have, the forms of all options.
fn expected(device: &Device, name: &str) -> String {
    let forms: &[(&str, &str)] = match device {
        Device::Cpu => return "no option".to_owned(),
        Device::Auto => return "no option, as it is open which device is taken; name the device".to_owned(),
        Device::Cuda(_) => &[("memory_limit", "BYTES"), ("tf32", "true|false")],
        Device::TensorRt(_) => &[
            ("fp16", "true|false"),
            ("engine_cache", "FOLDER"),
            ("timing_cache", "FOLDER"),
            ("shapes_min", SHAPE_FORM),
            ("shapes_opt", SHAPE_FORM),
            ("shapes_max", SHAPE_FORM),
        ],
        Device::OpenVino(_) => {
            &[("precision", "f32|bf16|f16"), ("cache", "FOLDER"), ("threads", "N, at least 1")]
        }
    };
    let write = |(name, form): &(&str, &str)| format!("{name}={form}");
    match forms.iter().find(|(known, _)| *known == name) {
        Some(form) => write(form),
        None => {
            let forms: Vec<String> = forms.iter().map(write).collect();
            let (last, others) =
                forms.split_last().map_or(("", &[][..]), |(last, others)| (last.as_str(), others));
            format!("{} or {last}", others.join(", "))
        }
    }
}

// `None` for a name that there is not, or a value that it cannot have

impl CudaOptions {
    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "memory_limit" => self.memory_limit = Some(value.parse().ok().filter(|bytes| *bytes > 0)?),
            "tf32" => self.tf32 = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }
}

impl TensorRtOptions {
    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "fp16" => self.fp16 = value.parse().ok()?,
            "engine_cache" => self.engine_cache = Some(folder(value)?),
            "timing_cache" => self.timing_cache = Some(folder(value)?),
            "shapes_min" => self.shapes_min = Some(value.parse().ok()?),
            "shapes_opt" => self.shapes_opt = Some(value.parse().ok()?),
            "shapes_max" => self.shapes_max = Some(value.parse().ok()?),
            _ => return None,
        }
        Some(())
    }
}

impl OpenVinoOptions {
    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "precision" => self.precision = value.parse().ok()?,
            "cache" => self.cache = Some(folder(value)?),
            "threads" => self.threads = Some(value.parse().ok().filter(|threads| *threads > 0)?),
            _ => return None,
        }
        Some(())
    }
}

/// A folder; every text names one, except the empty one.
fn folder(value: &str) -> Option<PathBuf> {
    (!value.is_empty()).then(|| PathBuf::from(value))
}
