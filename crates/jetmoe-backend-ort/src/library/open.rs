//! Opens a shared library as ONNX Runtime.

use std::ffi::CStr;
use std::path::Path;

use ort::sys::OrtApiBase;

/// Oldest ONNX Runtime that is accepted, as major and minor version.
const OLDEST: (u32, u32) = (1, ort::MINOR_VERSION);

/// Why a library cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Path(#[from] std::io::Error),
    /// The dynamic linker's text.
    #[error("{0}")]
    Linker(String),
    #[error("it does not export OrtGetApiBase, so it is another library")]
    OtherLibrary,
    #[error("its OrtGetApiBase returns null")]
    NoApiBase,
    #[error("it is ONNX Runtime {version}, too old; {}.{} or newer is needed", OLDEST.0, OLDEST.1)]
    TooOld { version: String },
    #[error("it is ONNX Runtime {version}, which does not offer the interface of {}.{}", OLDEST.0, OLDEST.1)]
    NoInterface { version: String },
    #[error(transparent)]
    Ort(#[from] ort::Error),
}

/// Opens a library for `ort` and returns its version.
pub(super) fn open(path: &Path) -> Result<String, OpenError> {
    // ort resolves a relative path against the folder of the executable
    let path = std::path::absolute(path)?;
    // SAFETY: opening a library runs its initialisers. The path comes from the user, the environment, or a folder
    // where the system's own linker or Python would load it from.
    let library = unsafe { libloading::Library::new(&path) }
        .map_err(|error| OpenError::Linker(linker_text(&error, &path)))?;
    let version = usable_version(&library)?;
    // ort opens it once more and keeps it; the builder is dropped because the environment is made with the first graph
    let _ = ort::init_from(&path).map_err(|error| OpenError::Linker(error.to_string()))?;
    Ok(version)
}

/// The version of an opened library. `ort` asks for it too, but asserts where this returns an error.
fn usable_version(library: &libloading::Library) -> Result<String, OpenError> {
    // SAFETY: the type is that of onnxruntime_c_api.h, and no other library exports this name.
    let api_base =
        unsafe { library.get::<unsafe extern "system" fn() -> *const OrtApiBase>(b"OrtGetApiBase") }
            .map_err(|_| OpenError::OtherLibrary)?;
    // SAFETY: the function has no arguments and returns a pointer to a static, or null.
    let Some(api_base) = (unsafe { api_base().as_ref() }) else {
        return Err(OpenError::NoApiBase);
    };
    // SAFETY: the function returns a static, null-terminated string.
    let version = unsafe { CStr::from_ptr((api_base.GetVersionString)()) }.to_string_lossy().into_owned();
    if major_and_minor(&version).is_none_or(|found| found < OLDEST) {
        return Err(OpenError::TooOld { version });
    }
    // SAFETY: the function returns a pointer to a static, or null for an interface that the library does not have.
    if unsafe { (api_base.GetApi)(OLDEST.1) }.is_null() {
        return Err(OpenError::NoInterface { version });
    }
    Ok(version)
}

fn major_and_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// The dynamic linker's message, without libloading's function name and without the path, which every message here
/// begins with.
fn linker_text(error: &libloading::Error, path: &Path) -> String {
    let text = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&text).to_owned()
}

/// Names of the execution providers that the opened library was built with, the fastest first.
pub(super) fn execution_providers() -> ort::Result<Vec<String>> {
    let mut names = std::ptr::null_mut();
    let mut count = 0;
    // SAFETY: both pointers are valid for writing; the result is an array of so many null-terminated strings.
    unsafe { ort::Error::result_from_status((ort::api().GetAvailableProviders)(&mut names, &mut count)) }?;
    let count_of_names = usize::try_from(count).unwrap_or(0);
    let providers = (0..count_of_names)
        // SAFETY: the index is inside the array, and the array is released after its strings were copied.
        .map(|index| unsafe { CStr::from_ptr(*names.add(index)) }.to_string_lossy().into_owned())
        .collect();
    // SAFETY: the array is the one that GetAvailableProviders returned, released once.
    unsafe { ort::Error::result_from_status((ort::api().ReleaseAvailableProviders)(names, count)) }?;
    Ok(providers)
}

#[cfg(test)]
mod tests;
