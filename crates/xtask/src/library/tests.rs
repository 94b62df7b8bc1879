use super::{CPU, Distribution, GPU, OPENVINO};

const SYSTEMS: [(&str, &str); 5] = [
    ("linux", "x86_64"),
    ("linux", "aarch64"),
    ("macos", "aarch64"),
    ("windows", "x86_64"),
    ("windows", "aarch64"),
];

fn systems(distribution: &Distribution) -> Vec<(&'static str, String)> {
    SYSTEMS.iter().filter_map(|(system, processor)| distribution.wheel(system, processor)).collect()
}

#[test]
fn every_wheel_of_the_tested_version_has_a_digest() {
    for (distribution, requirements) in [
        (CPU, include_str!("../../onnxruntime-requirements.txt")),
        (GPU, include_str!("../../onnxruntime-gpu-requirements.txt")),
        (OPENVINO, include_str!("../../onnxruntime-openvino-requirements.txt")),
    ] {
        let pinned = format!("{}=={} ", distribution.package, distribution.version);
        assert!(requirements.contains(&pinned), "{requirements}");
        assert_eq!(requirements.matches("--hash=sha256:").count(), systems(&distribution).len());
    }
}

#[test]
fn every_system_has_a_library_for_the_cpu() {
    assert_eq!(systems(&CPU).len(), SYSTEMS.len());
}

#[test]
fn a_library_that_names_its_version_names_the_tested_one() {
    for (_, library) in systems(&CPU) {
        assert!(library.contains("1.32.0") || library == "onnxruntime.dll", "{library}");
    }
}

#[test]
fn a_system_without_a_wheel_is_known_to_have_none() {
    assert_eq!(CPU.wheel("freebsd", "x86_64"), None);
    assert_eq!(OPENVINO.wheel("macos", "aarch64"), None);
}

#[test]
fn a_library_goes_where_the_runtime_looks() {
    for (distribution, folder) in [
        (CPU, "onnxruntime/1.32.0"),
        (GPU, "onnxruntime/1.31.1-gpu"),
        (OPENVINO, "onnxruntime/1.24.1-openvino"),
    ] {
        let found = distribution.folder().unwrap();
        assert!(found.ends_with(folder), "{}", found.display());
    }
}

#[test]
fn providers_are_installed_next_to_their_library_and_python_modules_are_not() {
    let root = std::env::temp_dir().join(format!("jetmoe-xtask-{}", std::process::id()));
    let (unpacked, folder) = (root.join("capi"), root.join("cache"));
    std::fs::create_dir_all(&unpacked).unwrap();
    for name in ["libonnxruntime.so.1", "libonnxruntime_providers_x.so", "onnxruntime_pybind11_state.so"] {
        std::fs::write(unpacked.join(name), name).unwrap();
    }
    OPENVINO.install(&unpacked, "libonnxruntime.so.1", &folder).unwrap();
    let entries = std::fs::read_dir(&folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["libonnxruntime.so.1", "libonnxruntime_providers_x.so"]);
    std::fs::remove_dir_all(root).unwrap();
}
