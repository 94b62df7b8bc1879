//! The backends: one line each.

use jetmoe_backend::Backend;

use crate::{Error, Result};

/// Lists backends, the preferred one first: the cargo feature, which is the backend's name, and its value.
macro_rules! registry {
    ($($feature:literal => $backend:expr),+ $(,)?) => {
        /// Names of all backends, compiled in or not.
        pub const BACKEND_NAMES: &[&str] = &[$($feature),+];

        const BUILT_IN: &[&dyn Backend] = &[$(#[cfg(feature = $feature)] &$backend),+];
    };
}

registry! {
    "ort" => jetmoe_backend_ort::OrtBackend,
    "tract" => jetmoe_backend_tract::TractBackend,
    "rten" => jetmoe_backend_rten::RtenBackend,
}

/// The backends of this build, in the order in which they are tried if none is requested.
pub fn backends() -> &'static [&'static dyn Backend] {
    BUILT_IN
}

/// Names of the backends of this build.
pub fn built_in_names() -> Vec<&'static str> {
    backends().iter().map(|backend| backend.name()).collect()
}

/// The backend of a name.
///
/// # Errors
/// [`Error::UnknownBackend`], or [`Error::NotBuiltIn`] for one that this build lacks.
pub fn backend(name: &str) -> Result<&'static dyn Backend> {
    let Some(name) = BACKEND_NAMES.iter().find(|known| **known == name) else {
        return Err(Error::UnknownBackend { name: name.to_owned() });
    };
    let built_in = BUILT_IN.iter().copied().find(|backend| backend.name() == *name);
    built_in.ok_or(Error::NotBuiltIn { backend: name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_has_the_name_of_its_backend() {
        for built_in in backends() {
            assert_eq!(backend(built_in.name()).unwrap().name(), built_in.name());
        }
        let unknown = backend("onnx").unwrap_err().to_string();
        assert_eq!(unknown, format!("unknown backend \"onnx\"; known: {}", built_in_names().join(", ")));
    }
}
