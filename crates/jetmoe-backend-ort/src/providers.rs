//! Registers the execution provider of a device.

use std::path::Path;

use jetmoe_artifact::{Axis, Profile, Signature};
use jetmoe_backend::{
    CudaOptions, Device, Error, ExecutionProvider, LoadOptions, OpenVinoDevice, OpenVinoOptions, Result,
    TensorRtOptions, TokenShape,
};
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProviderDispatch};
use ort::session::builder::SessionBuilder;

use crate::library::OnnxRuntimeLibrary;

/// Makes a session compute on the device of the options.
///
/// # Errors
/// [`Error::Device`] with the reason why it cannot.
pub(crate) fn register(
    builder: SessionBuilder,
    library: &OnnxRuntimeLibrary,
    profile: Profile,
    signature: &Signature,
    options: &LoadOptions,
) -> Result<SessionBuilder> {
    let Some(provider) = options.device.provider() else { return Ok(builder) };
    let refused = |message: String| Error::Device {
        device: options.device.to_string(),
        provider,
        library: library.path().to_owned(),
        message: one_line(&message),
    };
    if !library.execution_providers()?.iter().any(|name| name == provider.onnxruntime_name()) {
        return Err(refused(format!(
            "this libonnxruntime was built without {}",
            provider.onnxruntime_name()
        )));
    }
    let providers = match &options.device {
        Device::Cuda(cuda_options) => vec![cuda(cuda_options)?],
        Device::TensorRt(tensorrt_options) => {
            // CUDA computes the nodes that TensorRT does not support
            let rest = CudaOptions::default().with_device_id(tensorrt_options.device_id);
            vec![tensorrt(tensorrt_options, signature, options.max_sequence_length)?, cuda(&rest)?]
        }
        Device::OpenVino(openvino_options) => vec![openvino(openvino_options, options)?],
        Device::Cpu | Device::Auto => Vec::new(),
    };
    // by default ONNX Runtime leaves out a provider that fails, and the CPU computes
    let providers: Vec<_> = providers.into_iter().map(ExecutionProviderDispatch::error_on_failure).collect();
    let builder = builder
        .with_execution_providers(providers)
        .map_err(|error| refused(in_words(&options.device, error.message())))?;
    if provider == ExecutionProvider::OpenVino && profile == Profile::Portable {
        // OpenVINO supports such graphs completely; without this setting, unsupported nodes would run on the CPU
        return builder.with_disable_cpu_fallback().map_err(|error| refused(error.message().to_owned()));
    }
    Ok(builder)
}

fn cuda(options: &CudaOptions) -> Result<ExecutionProviderDispatch> {
    let provider = ep::CUDA::default().with_device_id(device_id(options.device_id)?).with_tf32(options.tf32);
    Ok(match options.memory_limit {
        Some(bytes) => provider.with_arbitrary_config("gpu_mem_limit", bytes),
        None => provider,
    }
    .build())
}

fn tensorrt(
    options: &TensorRtOptions,
    signature: &Signature,
    max_sequence_length: Option<usize>,
) -> Result<ExecutionProviderDispatch> {
    let mut provider =
        ep::TensorRT::default().with_device_id(device_id(options.device_id)?).with_fp16(options.fp16);
    if let Some(folder) = &options.engine_cache {
        let folder = text("engine_cache", folder)?;
        provider = provider.with_engine_cache(true).with_engine_cache_path(folder);
    }
    if let Some(folder) = &options.timing_cache {
        let folder = text("timing_cache", folder)?;
        provider = provider.with_timing_cache(true).with_timing_cache_path(folder);
    }
    if let Some(shapes) = options.shapes().or_else(|| max_sequence_length.map(shapes_up_to)) {
        let [min, opt, max] = shapes.map(|shape| input_shapes(signature, shape));
        provider =
            provider.with_profile_min_shapes(min).with_profile_opt_shapes(opt).with_profile_max_shapes(max);
    }
    Ok(provider.build())
}

/// Shapes of engines for one sequence of up to so many tokens: from its first step on, where nothing is cached, and best for a step
/// of one token in the middle.
fn shapes_up_to(longest: usize) -> [TokenShape; 3] {
    let one = |new_tokens, past_tokens| TokenShape { batch_size: 1, new_tokens, past_tokens };
    [one(1, 0), one(1, longest / 2), one(longest, longest)]
}

/// The shapes of all inputs as TensorRT's provider reads them: `input_ids:1x16,attention_mask:1x144,...`.
fn input_shapes(signature: &Signature, shape: TokenShape) -> String {
    let size = |axis: &Axis| {
        match axis {
            Axis::Fixed(size) => *size,
            Axis::BatchSize | Axis::CacheBatchSize => shape.batch_size,
            Axis::SequenceCount => 0,
            Axis::SequenceLength | Axis::LogitsLength => shape.new_tokens,
            Axis::PastSequenceLength => shape.past_tokens,
            Axis::TotalSequenceLength => shape.past_tokens + shape.new_tokens,
        }
        .to_string()
    };
    let inputs = signature.inputs.iter().map(|input| {
        let sizes: Vec<String> = input.shape.iter().map(size).collect();
        format!("{}:{}", input.name, sizes.join("x"))
    });
    inputs.collect::<Vec<_>>().join(",")
}

fn openvino(options: &OpenVinoOptions, load_options: &LoadOptions) -> Result<ExecutionProviderDispatch> {
    let mut provider = ep::OpenVINO::default().with_device_type(options.device);
    if let Some(threads) = options.threads.or_else(|| load_options.thread_limit()) {
        provider = provider.with_num_threads(threads);
    }
    if let Some(folder) = &options.cache {
        provider = provider.with_cache_dir(text("cache", folder)?);
    }
    Ok(provider.with_arbitrary_config("load_config", properties(options, load_options)).build())
}

/// OpenVINO's own properties, in the JSON that its provider reads, under the name of the device they are for.
fn properties(options: &OpenVinoOptions, load_options: &LoadOptions) -> String {
    let device = match options.device {
        OpenVinoDevice::Cpu => "CPU",
        OpenVinoDevice::Gpu(_) => "GPU",
        OpenVinoDevice::Npu => "NPU",
        OpenVinoDevice::Auto => "AUTO",
    };
    // on a CPU, OpenVINO quantizes activations of quantized products to 8 bits by default
    let rounding = match (options.device, load_options.int8_activations) {
        (OpenVinoDevice::Cpu, false) => r#","DYNAMIC_QUANTIZATION_GROUP_SIZE":"0""#,
        _ => "",
    };
    format!(r#"{{"{device}":{{"INFERENCE_PRECISION_HINT":"{}"{rounding}}}}}"#, options.precision)
}

fn device_id(number: u32) -> Result<i32> {
    i32::try_from(number).map_err(|_| Error::Option {
        option: "device id",
        found: number.to_string(),
        expected: "the number of a GPU",
    })
}

/// A folder as ONNX Runtime requires it. `ort` asserts where this returns an error.
fn text(option: &'static str, folder: &Path) -> Result<String> {
    let text = folder.to_str().filter(|text| !text.contains('\0'));
    text.map(str::to_owned).ok_or_else(|| Error::Option {
        option,
        found: folder.display().to_string(),
        expected: "a folder whose name is text",
    })
}

/// Shortens ONNX Runtime's messages, which begin with a source location and have several lines.
fn one_line(message: &str) -> String {
    let what = message.split_once("[ONNXRuntimeError] : 1 : FAIL : ").map_or(message, |(_, what)| what);
    what.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The message for a missing device: OpenVINO's provider does not report the reason.
fn in_words(device: &Device, message: &str) -> String {
    match device {
        Device::OpenVino(options) if message.contains("Failed to load provider") => {
            format!("OpenVINO has no {} here, or cannot be loaded: {message}", options.device)
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests;
