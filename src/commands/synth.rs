//! `jetmoe synth`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use jetmoe_checkpoint::{
    Dtype, ModelConfig, SyntheticOptions, jetmoe_8b_config, names, tokenizer_files, write_synthetic,
};
use serde_json::Value;

use super::{ExitStatus, print};

/// Write a checkpoint with random weights, to test any size anywhere.
#[derive(Debug, Args)]
pub(crate) struct Synth {
    /// Configuration: jetmoe-8b, or a folder with config.json, whose tokenizer is copied too.
    #[arg(long, value_name = "jetmoe-8b|DIR")]
    like: String,
    /// Folder to copy the tokenizer from instead. Its ids must be in the vocabulary.
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Number of layers [default: as the configuration says]
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// Type of the weights.
    #[arg(long, value_name = "DTYPE", default_value = "bf16")]
    dtype: DtypeArgument,
    /// The same seed gives the same weights.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Maximum size of a shard in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = SyntheticOptions::default().shard_bytes)]
    shard_bytes: u64,
    /// Folder of the checkpoint: new or empty.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DtypeArgument {
    F32,
    F16,
    Bf16,
}

impl From<DtypeArgument> for Dtype {
    fn from(argument: DtypeArgument) -> Self {
        match argument {
            DtypeArgument::F32 => Dtype::F32,
            DtypeArgument::F16 => Dtype::F16,
            DtypeArgument::Bf16 => Dtype::Bf16,
        }
    }
}

impl Synth {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        let is_free = match self.output.read_dir() {
            Ok(mut entries) => entries.next().is_none(),
            Err(_) => !self.output.exists(),
        };
        anyhow::ensure!(is_free, "{} exists and is not empty; choose a new folder", self.output.display());
        let mut config = self.config()?;
        if let (Some(layers), Some(object)) = (self.layers, config.as_object_mut()) {
            object.insert("num_hidden_layers".to_owned(), layers.into());
        }
        let options =
            SyntheticOptions { dtype: self.dtype.into(), seed: self.seed, shard_bytes: self.shard_bytes };
        let bytes = ModelConfig::from_json(&config).map_or(0, |config| config.parameters())
            * options.dtype.size() as u64;
        let bar = jetmoe_console::byte_bar("writing", bytes);
        write_synthetic(&config, &self.output, &options, &mut |bytes| bar.inc(bytes))?;
        drop(bar);
        self.copy_tokenizer()?;
        print(&format!("{}\n", self.output.display()))?;
        Ok(ExitStatus::Success)
    }

    fn config(&self) -> anyhow::Result<Value> {
        if self.like == "jetmoe-8b" && !Path::new(&self.like).is_dir() {
            return Ok(jetmoe_8b_config());
        }
        let path = Path::new(&self.like).join(names::CONFIG);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}; --like takes jetmoe-8b or a folder with config.json", path.display())
        })?;
        serde_json::from_str(&text).with_context(|| format!("{} is not valid", path.display()))
    }

    fn copy_tokenizer(&self) -> anyhow::Result<()> {
        if let Some(folder) = &self.tokenizer {
            let file = folder.join(names::TOKENIZER);
            anyhow::ensure!(
                file.is_file(),
                "{} does not exist; --tokenizer takes a folder that has it",
                file.display()
            );
        }
        let folder = self.tokenizer.as_deref().unwrap_or(Path::new(&self.like));
        let mut files = tokenizer_files(folder)?;
        files.extend(
            folder.join(names::GENERATION_CONFIG).is_file().then(|| names::GENERATION_CONFIG.to_owned()),
        );
        for name in files {
            let (source, target) = (folder.join(&name), self.output.join(&name));
            let copied = target.parent().map_or(Ok(()), std::fs::create_dir_all);
            copied
                .and_then(|()| std::fs::copy(&source, &target))
                .with_context(|| format!("cannot copy {}", source.display()))?;
        }
        Ok(())
    }
}
