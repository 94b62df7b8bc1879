//! Devices and their options by name.

use super::*;

fn with(device: &str, options: &[&str]) -> Result<Device> {
    let options: Vec<ProviderOption> = options.iter().map(|option| option.parse().unwrap()).collect();
    device.parse::<Device>().unwrap().with_options(&options)
}

#[test]
fn a_device_reads_back_as_itself() {
    for text in ["cpu", "cuda:1", "tensorrt:0", "openvino:CPU", "openvino:GPU.1", "openvino:NPU", "auto"] {
        assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
    }
    for (short, long) in [("cuda", "cuda:0"), ("tensorrt", "tensorrt:0"), ("openvino", "openvino:CPU")] {
        assert_eq!(short.parse::<Device>().unwrap(), long.parse().unwrap());
    }
}

#[test]
fn another_device_is_refused_with_the_forms_there_are() {
    for text in ["gpu", "cuda:", "cuda:first", "cuda:-1", "cpu:0", "openvino:TPU", "openvino:GPU.x", ""] {
        let why = text.parse::<Device>().unwrap_err().to_string();
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
fn a_version_names_the_device_unless_it_is_the_cpu() {
    let describe = |device: &str| device.parse::<Device>().unwrap().describe("1.2.3");
    assert_eq!(describe("cpu"), "1.2.3");
    assert_eq!(describe("openvino"), "1.2.3 (openvino CPU)");
    assert_eq!(describe("cuda"), "1.2.3 (cuda:0)");
}
