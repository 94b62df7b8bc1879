use crate::Backend;

/// A case that a backend cannot run, with the reason. The suite fails when the case starts to pass, so that no gap
/// outlives its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The backend that cannot.
    pub backend: Backend,
    /// Name of the golden case.
    pub case: &'static str,
    /// Why, with a link or a version.
    pub reason: &'static str,
}

/// Every gap there is. Expected: none.
pub const KNOWN_GAPS: &[Gap] = &[];
