//! The index of a checkpoint in several shards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::{Error, Result, is_inside, read_json};

/// `model.safetensors.index.json`: which file holds which tensor.
#[derive(Debug)]
pub struct WeightsIndex {
    path: PathBuf,
    weight_map: BTreeMap<String, String>,
}

impl WeightsIndex {
    /// Reads an index. It may only name files in its own folder and in folders below.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`], or [`Error::ShardOutside`] for a file outside of the folder.
    pub fn read(path: &Path) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct File {
            weight_map: BTreeMap<String, String>,
        }
        let File { weight_map } = read_json(path)?;
        match weight_map.iter().find(|(_, file)| !is_inside(file)) {
            Some((tensor, file)) => Err(Error::ShardOutside {
                index: path.to_owned(),
                tensor: tensor.clone(),
                file: file.clone(),
            }),
            None => Ok(WeightsIndex { path: path.to_owned(), weight_map }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the shard files, each once, sorted.
    pub fn shards(&self) -> impl Iterator<Item = &str> {
        self.weight_map.values().map(String::as_str).collect::<std::collections::BTreeSet<_>>().into_iter()
    }

    /// Every tensor with the file that holds it.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (&str, &str)> {
        self.weight_map.iter().map(|(tensor, file)| (tensor.as_str(), file.as_str()))
    }
}
