//! The libonnxruntime of this process.
//!
//! A process can hold one. [`OnnxRuntimeLibrary::find`] searches for it, opens it and keeps it; from then on it returns the
//! same one, and asking for another is an error.

mod open;
mod search;
mod telemetry;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jetmoe_backend::{BoxError, Error, ExecutionProvider, Result};

pub use self::search::{LIBRARY_PATH_VARIABLE, cache_folder};

use self::search::SearchPaths;

/// Why a path was searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display)]
pub enum LibraryOrigin {
    /// The caller named it, by [`LoadOptions::onnxruntime_library`](jetmoe_backend::LoadOptions::onnxruntime_library).
    #[strum(serialize = "given path")]
    Explicit,
    /// The environment variable `ORT_DYLIB_PATH` names it.
    #[strum(serialize = "ORT_DYLIB_PATH")]
    Variable,
    /// The project's own cache, see [`cache_folder`].
    #[strum(serialize = "project cache")]
    Cache,
    /// A folder of the system's dynamic linker.
    #[strum(serialize = "system")]
    System,
    /// The package `onnxruntime` of a Python environment.
    #[strum(serialize = "Python environment")]
    Python,
}

/// Status of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LibraryStatus {
    /// A file with the name of a libonnxruntime, not opened yet.
    Found,
    /// No such file, and the reason.
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

/// A path that was searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryCandidate {
    /// The library, or the location without one.
    pub path: PathBuf,
    /// Why it was searched.
    pub origin: LibraryOrigin,
    /// The result.
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
    /// Every path in search order, with its status. Opens nothing.
    ///
    /// `explicit` is the argument of [`find`](Self::find).
    pub fn candidates(explicit: Option<&Path>) -> Vec<LibraryCandidate> {
        SearchPaths::of_this_machine().candidates(explicit, None).collect()
    }

    /// As [`candidates`](Self::candidates), for [`find_with`](Self::find_with).
    pub fn candidates_with(explicit: Option<&Path>, provider: ExecutionProvider) -> Vec<LibraryCandidate> {
        SearchPaths::of_this_machine().candidates(explicit, Some(provider)).collect()
    }

    /// Finds the library, opens it and keeps it for the life of the process. Disables its telemetry before: sets the
    /// environment variable `ORT_DISABLE_TELEMETRY` to 1, unless it is set.
    ///
    /// In this order: `explicit`, the environment variable `ORT_DYLIB_PATH`, the project's cache, the system, a Python
    /// environment. A library in the last three that cannot be used, for instance because it is too old, is
    /// skipped; one of the first two is used or rejected.
    ///
    /// # Errors
    /// [`Error::Library`] if the named library cannot be used or the process already has another one;
    /// [`Error::LibraryNotFound`] if there is none.
    pub fn find(explicit: Option<&Path>) -> Result<Self> {
        find(explicit, None)
    }

    /// As [`find`](Self::find), but a library that was not named must have an execution provider; in the project's cache
    /// only those downloaded for it are considered.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn find_with(explicit: Option<&Path>, provider: ExecutionProvider) -> Result<Self> {
        find(explicit, Some(provider))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why its path was searched.
    pub fn origin(&self) -> LibraryOrigin {
        self.origin
    }

    /// Version of ONNX Runtime, as in `1.32.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Execution providers that it was built with, by ONNX Runtime's names and the fastest first, as in
    /// `CPUExecutionProvider`. One of them may still lack its driver here.
    ///
    /// # Errors
    /// [`Error::Library`] if the library reports none.
    pub fn execution_providers(&self) -> Result<Vec<String>> {
        open::execution_providers().map_err(|error| library_error(&self.path, error))
    }
}

pub(crate) fn library_error(path: &Path, source: impl Into<BoxError>) -> Error {
    Error::Library { path: path.to_owned(), advice: None, source: source.into() }
}

fn find(explicit: Option<&Path>, provider: Option<ExecutionProvider>) -> Result<OnnxRuntimeLibrary> {
    static OPENED: Mutex<Option<OnnxRuntimeLibrary>> = Mutex::new(None);

    // held while searching, so that two threads cannot open two libraries
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = &*opened {
        return match explicit {
            Some(path) if !same_file(path, &library.path) => Err(Error::Library {
                path: path.to_owned(),
                advice: Some("start another process for another library"),
                source: format!(
                    "this process already runs {}, and it can hold only one",
                    library.path.display()
                )
                .into(),
            }),
            _ => Ok(library.clone()),
        };
    }
    telemetry::disable();
    let library = first_usable(SearchPaths::of_this_machine().candidates(explicit, provider), provider)?;
    tracing::debug!(path = %library.path.display(), origin = %library.origin, version = library.version, "opened libonnxruntime");
    *opened = Some(library.clone());
    Ok(library)
}

fn first_usable(
    candidates: impl Iterator<Item = LibraryCandidate>,
    provider: Option<ExecutionProvider>,
) -> Result<OnnxRuntimeLibrary> {
    let mut searched = Vec::new();
    for candidate in candidates {
        let refusal: BoxError = match &candidate.status {
            LibraryStatus::Missing(why) => why.clone().into(),
            LibraryStatus::Found => match open::open(&candidate.path) {
                Ok(version) => {
                    return Ok(OnnxRuntimeLibrary {
                        path: candidate.path,
                        origin: candidate.origin,
                        version,
                    });
                }
                Err(why) => why.into(),
            },
        };
        // a named file is used or rejected, never replaced by another one
        let advice = match candidate.origin {
            LibraryOrigin::Explicit => {
                Some("name the libonnxruntime itself, or leave the choice to the search")
            }
            LibraryOrigin::Variable => Some("ORT_DYLIB_PATH names it; correct or unset it"),
            LibraryOrigin::Cache | LibraryOrigin::System | LibraryOrigin::Python => None,
        };
        if advice.is_some() {
            return Err(Error::Library { path: candidate.path, advice, source: refusal });
        }
        searched.push(format!("{} ({}): {refusal}", candidate.path.display(), candidate.origin));
    }
    Err(Error::LibraryNotFound { provider, searched })
}

fn same_file(left: &Path, right: &Path) -> bool {
    match (left.canonicalize(), right.canonicalize()) {
        (Ok(left), Ok(right)) => left == right,
        _ => left == right,
    }
}
