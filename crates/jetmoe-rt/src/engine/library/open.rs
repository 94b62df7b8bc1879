//! Opens a shared library as ONNX Runtime.

use std::ffi::CStr;
use std::path::Path;

use ort::sys::OrtApiBase;

/// Oldest ONNX Runtime that will do, as major and minor version.
const OLDEST: (u32, u32) = (1, ort::MINOR_VERSION);

/// Opens a library for `ort` and says its version, or why it cannot be used.
pub(super) fn open(path: &Path) -> Result<String, String> {
    // ort resolves a relative path against the folder of the executable
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    // SAFETY: opening a library runs its initialisers. The path comes from the user, the environment, or a folder
    // where the system's own linker or Python would load it from.
    let library = unsafe { libloading::Library::new(&path) }.map_err(|error| linker_text(&error, &path))?;
    let version = usable_version(&library)?;
    // ort opens it once more and keeps it; the builder is dropped because the environment is made with the first graph
    let _ = ort::init_from(&path).map_err(|error| error.to_string())?;
    Ok(version)
}

/// The version of an opened library. `ort` asks for it too, but asserts where this says what is wrong.
fn usable_version(library: &libloading::Library) -> Result<String, String> {
    // SAFETY: the type is that of onnxruntime_c_api.h, and no other library exports this name.
    let api_base =
        unsafe { library.get::<unsafe extern "system" fn() -> *const OrtApiBase>(b"OrtGetApiBase") }
            .map_err(|_| "it does not export OrtGetApiBase, so it is another library".to_owned())?;
    // SAFETY: the function takes nothing and answers a pointer to a static, or null.
    let Some(api_base) = (unsafe { api_base().as_ref() }) else {
        return Err("its OrtGetApiBase answers nothing".to_owned());
    };
    // SAFETY: the function answers a static, null-terminated string.
    let version = unsafe { CStr::from_ptr((api_base.GetVersionString)()) }.to_string_lossy().into_owned();
    let (major, minor) = OLDEST;
    if major_and_minor(&version).is_none_or(|found| found < OLDEST) {
        return Err(format!("it is ONNX Runtime {version}, too old; {major}.{minor} or newer is needed"));
    }
    // SAFETY: the function answers a pointer to a static, or null for an interface that the library does not have.
    if unsafe { (api_base.GetApi)(minor) }.is_null() {
        return Err(format!(
            "it is ONNX Runtime {version}, which does not offer the interface of {major}.{minor}"
        ));
    }
    Ok(version)
}

fn major_and_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// What the dynamic linker says. libloading's own text names the function that failed, and the linker's begins with
/// the path that every message here begins with.
fn linker_text(error: &libloading::Error, path: &Path) -> String {
    let text = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&text).to_owned()
}

/// Names of the execution providers that the opened library was built with, the fastest first.
pub(super) fn execution_providers() -> Result<Vec<String>, String> {
    let mut names = std::ptr::null_mut();
    let mut count = 0;
    // SAFETY: both pointers are valid for writing; the answer is an array of so many null-terminated strings.
    unsafe { ort::Error::result_from_status((ort::api().GetAvailableProviders)(&mut names, &mut count)) }
        .map_err(|error| error.message().to_owned())?;
    let count_of_names = usize::try_from(count).unwrap_or(0);
    let providers = (0..count_of_names)
        // SAFETY: the index is inside the array, and the array is released after its strings were copied.
        .map(|index| unsafe { CStr::from_ptr(*names.add(index)) }.to_string_lossy().into_owned())
        .collect();
    // SAFETY: the array is the one that GetAvailableProviders answered, released once.
    unsafe { ort::Error::result_from_status((ort::api().ReleaseAvailableProviders)(names, count)) }
        .map_err(|error| error.message().to_owned())?;
    Ok(providers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(major_and_minor("1.9.1"), Some((1, 9)));
        assert!(major_and_minor("1.9.1") < Some(OLDEST));
        assert!(major_and_minor("1.100.0-dev") > Some(OLDEST));
        assert!(major_and_minor("2.0.0") > Some(OLDEST));
        assert_eq!(major_and_minor("nightly"), None);
    }

    #[test]
    fn a_file_that_is_no_library_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for content in
            ["", "no library, and long enough to hold the header of one, which is 64 bytes or less"]
        {
            let path = folder.path().join("libonnxruntime.so");
            std::fs::write(&path, content).unwrap();
            let why = open(&path).unwrap_err();
            assert!(!why.is_empty() && !why.contains("libonnxruntime.so"), "{why}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn another_library_is_refused() {
        let libm = std::fs::read_to_string("/proc/self/maps")
            .unwrap()
            .lines()
            .find_map(|line| {
                Some(line[line.find('/')?..].to_owned()).filter(|path| path.contains("/libm.so"))
            })
            .unwrap();
        let why = open(Path::new(&libm)).unwrap_err();
        assert!(why.contains("OrtGetApiBase"), "{why}");
    }
}
