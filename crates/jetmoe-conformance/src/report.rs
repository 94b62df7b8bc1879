//! The report of `jetmoe verify`.

use jetmoe_artifact::{TensorRecord, VerificationRecord};
use serde::Serialize;

use crate::Comparison;

/// Version of the JSON form of [`VerificationReport`]; fields are added without a new version, but none is removed.
pub const REPORT_SCHEMA: u32 = 1;

/// The report of `jetmoe verify`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerificationReport {
    /// Version of this form.
    pub schema_version: u32,
    /// The artifact.
    pub model: String,
    /// Source of the expected results.
    pub expected_by: String,
    /// Whether every backend passed.
    pub passed: bool,
    /// One entry per backend.
    pub backends: Vec<Comparison>,
}

impl VerificationReport {
    /// Collects comparisons with one expectation.
    pub fn new(model: String, expected_by: String, backends: Vec<Comparison>) -> Self {
        let passed = backends.iter().all(|backend| backend.passed);
        VerificationReport { schema_version: REPORT_SCHEMA, model, expected_by, passed, backends }
    }
}

impl Comparison {
    /// The comparison as the manifest records it.
    pub fn to_record(&self) -> VerificationRecord {
        VerificationRecord {
            backend: self.runtime.clone(),
            passed: self.passed,
            tokens: self.tokens,
            tensors: self
                .tensors
                .iter()
                .map(|tensor| TensorRecord {
                    name: tensor.name.clone(),
                    max_absolute_error: tensor.max_absolute_error,
                    max_relative_error: tensor.max_relative_error,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
