//! Free memory of an NVIDIA GPU.

use jetmoe_backend::Device;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

/// Free memory of a device in bytes, or the limit in its options if that is less. `None` if neither is known.
///
/// The driver numbers GPUs by their place on the bus, and CUDA by their speed unless `CUDA_DEVICE_ORDER` says otherwise; with GPUs of
/// different kinds the number of a device may mean another one here.
pub(crate) fn available(device: &Device) -> Option<u64> {
    let (number, limit) = match device {
        Device::Cuda(options) => (options.device_id, options.memory_limit),
        Device::TensorRt(options) => (options.device_id, None),
        Device::Cpu | Device::Auto | Device::OpenVino(_) => return None,
    };
    let free = free(number).inspect_err(|error| tracing::debug!("free memory of {device}: {error}")).ok();
    free.into_iter().chain(limit).min()
}

/// Free memory of a GPU, as the driver says.
fn free(number: u32) -> Result<u64, NvmlError> {
    Ok(Nvml::init()?.device_by_index(number)?.memory_info()?.free)
}

#[cfg(test)]
mod tests {
    use jetmoe_backend::CudaOptions;

    use super::*;

    #[test]
    fn a_limit_is_the_most_that_is_available() {
        let limited = Device::Cuda(CudaOptions::default().with_memory_limit(1000));
        assert_eq!(available(&limited), Some(1000));
        assert_eq!(available(&Device::Cpu), None);
    }
}
