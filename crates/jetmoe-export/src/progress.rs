//! How far an export is, for callers that draw it.

/// A stage of an export that takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Computing the digest of the checkpoint. Counted in bytes.
    Hashing,
    /// Running the calibration text through the model and quantizing. Counted in steps.
    Calibrating,
    /// Writing the weights. Counted in bytes.
    Writing,
}

impl Stage {
    /// The stage in one word.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Hashing => "hashing",
            Stage::Calibrating => "calibrating",
            Stage::Writing => "writing",
        }
    }
}

/// One advance of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The stage.
    pub stage: Stage,
    /// Bytes or steps since the last call.
    pub delta: u64,
    /// Bytes or steps of the whole stage.
    pub total: u64,
}

/// Called as an export advances, from any thread.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Sync);
