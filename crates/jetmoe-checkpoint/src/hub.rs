//! Download from the Hugging Face hub.
use std::path::PathBuf;
use crate::{HubOptions, Result};
pub(crate) fn download(_id: &str, _options: &HubOptions) -> Result<PathBuf> { todo!() }
