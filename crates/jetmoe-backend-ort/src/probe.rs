//! Tries devices without a graph.

use jetmoe_artifact::{CacheUpdate, Profile, Signature};
use jetmoe_backend::{Device, LoadOptions, Result};
use ort::session::Session;

use crate::graph::environment;
use crate::library::{OnnxRuntimeLibrary, library_error};
use crate::providers;

/// Tries whether a library computes on a device: whether it contains the execution provider and can load it. A failing GPU
/// is detected only with a graph.
///
/// # Errors
/// [`Error::Device`](jetmoe_backend::Error::Device) with the reason why not.
pub fn try_device(library: &OnnxRuntimeLibrary, device: Device) -> Result<()> {
    let builder =
        Session::builder(&environment(library)?).map_err(|error| library_error(library.path(), error))?;
    let options = LoadOptions::default().with_device(device);
    let nothing = Signature {
        inputs: Vec::new(),
        optional_inputs: Vec::new(),
        outputs: Vec::new(),
        cache_update: CacheUpdate::Append,
    };
    providers::register(builder, library, Profile::OnnxRuntime, &nothing, &options).map(drop)
}
