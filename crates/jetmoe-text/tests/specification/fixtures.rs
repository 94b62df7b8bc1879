//! The trained model of the repository.

use std::path::PathBuf;

pub(crate) use jetmoe_testing::files::write_json;
use jetmoe_testing::fixtures;
use serde_json::Value;

/// Its folder.
pub(crate) fn mini() -> PathBuf {
    fixtures::checkpoint("jetmoe-mini")
}

/// What transformers computed for it.
pub(crate) fn expected() -> Value {
    fixtures::json("jetmoe-mini", "expected.json")
}
