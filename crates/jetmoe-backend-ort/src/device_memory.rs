//! Memory of an NVIDIA GPU.

use jetmoe_artifact::GraphRecord;
use jetmoe_backend::{Device, MemoryShortage};
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

/// Memory of a GPU in addition to the weights, in bytes: CUDA's context and the kernels of ONNX Runtime.
const BASE_MEMORY: u64 = 500 << 20;

/// Whether the weights of a graph, as they are stored, are more than the limit in the device's options, or with what CUDA takes more
/// than is free. `None` if it fits, or if it is unknown.
pub(crate) fn shortage(graph: &GraphRecord, device: &Device) -> Option<MemoryShortage> {
    let (number, limit) = match device {
        Device::Cuda(options) => (options.device_id, options.memory_limit),
        Device::TensorRt(options) => (options.device_id, None),
        Device::Cpu | Device::Auto | Device::OpenVino(_) => return None,
    };
    let weights = graph.stored.values().copied().fold(0, u64::saturating_add);
    let limited = limit.map(|limit| MemoryShortage { needed: weights, available: limit });
    let free = free(number)
        .map(|free| MemoryShortage { needed: weights.saturating_add(BASE_MEMORY), available: free });
    limited.into_iter().chain(free).find(|memory| memory.available < memory.needed)
}

/// Free memory of a GPU, as the driver says; `None` if it does not, or if a variable gives the GPUs other numbers in CUDA.
fn free(number: u32) -> Option<u64> {
    // without these, CUDA and the driver count the GPUs of one kind alike
    if ["CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"].iter().any(|name| std::env::var_os(name).is_some()) {
        return None;
    }
    let free =
        || -> Result<u64, NvmlError> { Ok(Nvml::init()?.device_by_index(number)?.memory_info()?.free) };
    free().inspect_err(|error| tracing::debug!("free memory of GPU {number}: {error}")).ok()
}
