//! Which libonnxruntime serves this process.
//!
//! A process can hold one. [`OnnxRuntimeLibrary::find`] looks for it, opens it and keeps it; from then on the same
//! one is answered, and asking for another is an error.

#[cfg(feature = "ort")]
mod open;
mod search;

use std::fmt;
use std::path::{Path, PathBuf};

pub use self::search::{LIBRARY_PATH_VARIABLE, cache_folder};

use self::search::Places;
use crate::{Error, Provider, Result};

/// Who said where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LibraryOrigin {
    /// The caller, by [`LoadOptions::onnxruntime_library`](crate::LoadOptions::onnxruntime_library).
    Given,
    /// The environment variable `ORT_DYLIB_PATH`.
    Variable,
    /// The project's own cache, see [`cache_folder`].
    Cache,
    /// The folders of the system's dynamic linker.
    System,
    /// The package `onnxruntime` of a Python environment.
    Python,
}

impl fmt::Display for LibraryOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LibraryOrigin::Given => "given path",
            LibraryOrigin::Variable => LIBRARY_PATH_VARIABLE,
            LibraryOrigin::Cache => "project cache",
            LibraryOrigin::System => "system",
            LibraryOrigin::Python => "Python environment",
        })
    }
}

/// What a place holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LibraryStatus {
    /// A file with the name of a libonnxruntime. Whether it is one shows when it is opened.
    Found,
    /// No such file, and why not.
    Missing(String),
}

impl fmt::Display for LibraryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LibraryStatus::Found => f.write_str("found"),
            LibraryStatus::Missing(why) => f.write_str(why),
        }
    }
}

/// A place that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryCandidate {
    /// The library, or the place where none was.
    pub path: PathBuf,
    /// Who said to look there.
    pub origin: LibraryOrigin,
    /// What was there.
    pub status: LibraryStatus,
}

/// The libonnxruntime of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxRuntimeLibrary {
    path: PathBuf,
    origin: LibraryOrigin,
    version: String,
}

impl OnnxRuntimeLibrary {
    /// Every place, in the order in which they are tried, and what is there. Opens nothing.
    ///
    /// `explicit` is what [`find`](Self::find) would be given.
    pub fn candidates(explicit: Option<&Path>) -> Vec<LibraryCandidate> {
        Places::of_this_machine().candidates(explicit, None).collect()
    }

    /// As [`candidates`](Self::candidates), for [`find_with`](Self::find_with).
    pub fn candidates_with(explicit: Option<&Path>, provider: Provider) -> Vec<LibraryCandidate> {
        Places::of_this_machine().candidates(explicit, Some(provider)).collect()
    }

    /// Finds the library, opens it and keeps it for the life of the process.
    ///
    /// In this order: `explicit`, the environment variable `ORT_DYLIB_PATH`, the project's cache, the system, a Python
    /// environment. A library in the last three that cannot be used, for instance because it is too old, is passed
    /// over; the first two are taken or refused.
    ///
    /// # Errors
    /// [`Error::Library`] if the named library cannot be used or the process already has another one;
    /// [`Error::LibraryNotFound`] if there is none; [`Error::NotBuiltIn`] without the cargo feature `ort`.
    pub fn find(explicit: Option<&Path>) -> Result<Self> {
        find(explicit, None)
    }

    /// As [`find`](Self::find), but a library that nobody named must have an execution provider: it takes those of the
    /// project's cache that were fetched for it, and passes over the others.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn find_with(explicit: Option<&Path>, provider: Provider) -> Result<Self> {
        find(explicit, Some(provider))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who said where to look.
    pub fn origin(&self) -> LibraryOrigin {
        self.origin
    }

    /// Version of ONNX Runtime, as in `1.32.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Tries whether it can compute on a device: whether its provider is in it and can be loaded. A GPU that fails shows
    /// only with a graph.
    ///
    /// # Errors
    /// [`Error::Device`] with the reason why not.
    #[cfg(feature = "ort")]
    pub fn try_device(&self, device: crate::Device) -> Result<()> {
        crate::engine::ort::try_device(self, device)
    }

    /// Execution providers that it was built with, by ONNX Runtime's names and the fastest first, as in
    /// `CPUExecutionProvider`. One of them may still lack its driver here.
    ///
    /// # Errors
    /// [`Error::Library`] if it does not say.
    #[cfg(feature = "ort")]
    pub fn execution_providers(&self) -> Result<Vec<String>> {
        open::execution_providers().map_err(|message| Error::Library { path: self.path.clone(), message })
    }
}

#[cfg(not(feature = "ort"))]
fn find(_explicit: Option<&Path>, _provider: Option<Provider>) -> Result<OnnxRuntimeLibrary> {
    Err(Error::NotBuiltIn { runtime: crate::Runtime::Ort })
}

#[cfg(feature = "ort")]
fn find(explicit: Option<&Path>, provider: Option<Provider>) -> Result<OnnxRuntimeLibrary> {
    use std::sync::{Mutex, PoisonError};

    static OPENED: Mutex<Option<OnnxRuntimeLibrary>> = Mutex::new(None);

    // held while searching, so that two threads cannot open two libraries
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = &*opened {
        return match explicit {
            Some(path) if !same_file(path, &library.path) => Err(Error::Library {
                path: path.to_owned(),
                message: format!(
                    "this process already runs {}, and it can hold only one\n  start another process for another library",
                    library.path.display()
                ),
            }),
            _ => Ok(library.clone()),
        };
    }
    let library = first_usable(Places::of_this_machine().candidates(explicit, provider), provider)?;
    tracing::debug!(path = %library.path.display(), origin = %library.origin, version = library.version, "opened libonnxruntime");
    *opened = Some(library.clone());
    Ok(library)
}

#[cfg(feature = "ort")]
fn first_usable(
    candidates: impl Iterator<Item = LibraryCandidate>,
    provider: Option<Provider>,
) -> Result<OnnxRuntimeLibrary> {
    let mut searched = Vec::new();
    for candidate in candidates {
        let refusal = match &candidate.status {
            LibraryStatus::Missing(why) => why.clone(),
            LibraryStatus::Found => match open::open(&candidate.path) {
                Ok(version) => {
                    return Ok(OnnxRuntimeLibrary {
                        path: candidate.path,
                        origin: candidate.origin,
                        version,
                    });
                }
                Err(why) => why,
            },
        };
        // somebody named this very file, so another may not silently take its place
        let advice = match candidate.origin {
            LibraryOrigin::Given => {
                Some("\n  name the libonnxruntime itself, or leave the choice to the search".to_owned())
            }
            LibraryOrigin::Variable => {
                Some(format!("\n  {LIBRARY_PATH_VARIABLE} names it; correct or unset it"))
            }
            LibraryOrigin::Cache | LibraryOrigin::System | LibraryOrigin::Python => None,
        };
        if let Some(advice) = advice {
            return Err(Error::Library { path: candidate.path, message: refusal + &advice });
        }
        searched.push(format!("{} ({}): {refusal}", candidate.path.display(), candidate.origin));
    }
    Err(Error::LibraryNotFound { provider, searched })
}

#[cfg(feature = "ort")]
fn same_file(left: &Path, right: &Path) -> bool {
    match (left.canonicalize(), right.canonicalize()) {
        (Ok(left), Ok(right)) => left == right,
        _ => left == right,
    }
}
