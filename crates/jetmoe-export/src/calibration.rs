//! The text that calibrates the quantization.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use jetmoe_checkpoint::{Checkpoint, Digest, names};
use jetmoe_text::Tokenizer;
use serde::Deserialize;

use crate::{Error, Result};

/// Calibration of 4-bit weights (GPTQ): runs text through the model in float32 and quantizes each weight so that its
/// product with these inputs changes least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calibration {
    /// A file of text like what the model will read: with the extension `jsonl`, one JSON object with a field `text` per
    /// line; otherwise plain text with blank lines between the texts.
    pub text: PathBuf,
    /// Most tokens to read.
    pub max_tokens: usize,
}

/// Tokens of one sequence. The cost of attention grows with the square.
const WINDOW_TOKENS: usize = 512;

/// Upper bound for the bytes of a token: text of this size per token holds enough tokens.
const MAX_BYTES_PER_TOKEN: usize = 64;

/// The encoded text.
#[derive(Debug)]
pub(crate) struct CalibrationText {
    /// Digest of the file.
    pub(crate) digest: Digest,
    /// Token ids of every window.
    pub(crate) windows: Vec<Vec<u32>>,
}

impl Calibration {
    /// Default number of tokens: with 2 of 8 experts per token, each expert sees about 4000.
    pub const DEFAULT_TOKENS: usize = 16384;

    /// Calibration with a file and the default number of tokens.
    pub fn new(text: impl Into<PathBuf>) -> Self {
        Calibration { text: text.into(), max_tokens: Self::DEFAULT_TOKENS }
    }

    /// Reads and encodes up to `max_tokens` tokens.
    pub(crate) fn read(&self, checkpoint: &Checkpoint) -> Result<CalibrationText> {
        let path = &self.text;
        let failed = |source| Error::Io { action: "read", path: path.clone(), source };
        let tokenizer = Tokenizer::open(checkpoint.folder())?.ok_or_else(|| Error::NoTokenizer {
            folder: checkpoint.folder().to_owned(),
            file: names::TOKENIZER,
        })?;
        let file = File::open(path).map_err(failed)?;
        let window = WINDOW_TOKENS.min(checkpoint.config().max_position_embeddings).max(1);
        let mut windows =
            Windows { tokenizer: &tokenizer, window, remaining: self.max_tokens, windows: Vec::new() };
        let is_json = path.extension().is_some_and(|extension| extension == "jsonl");
        let mut text = String::new();
        for (index, line) in BufReader::new(file).lines().enumerate() {
            let line = line.map_err(failed)?;
            if windows.remaining == 0 {
                break;
            } else if is_json {
                windows.add(&parse_line(&line, path, index + 1)?)?;
            } else if line.trim().is_empty() || text.len() / MAX_BYTES_PER_TOKEN > windows.remaining {
                windows.add(&std::mem::take(&mut text))?;
            }
            if !is_json && !line.trim().is_empty() {
                let between = if text.is_empty() { "" } else { "\n" };
                text.extend([between, &line]);
            }
        }
        windows.add(&text)?;
        if windows.windows.is_empty() {
            return Err(Error::EmptyCalibration { path: path.clone() });
        }
        let digest = Digest::of_file(path).map_err(failed)?;
        Ok(CalibrationText { digest, windows: windows.windows })
    }
}

impl CalibrationText {
    /// Tokens of all windows.
    pub(crate) fn tokens(&self) -> usize {
        self.windows.iter().map(Vec::len).sum()
    }
}

/// The text of a JSON line; empty for an empty line.
fn parse_line(line: &str, path: &Path, number: usize) -> Result<String> {
    #[derive(Deserialize)]
    struct Line {
        text: String,
    }
    if line.trim().is_empty() {
        return Ok(String::new());
    }
    let line: Line = serde_json::from_str(line).map_err(|source| Error::CalibrationLine {
        path: path.to_owned(),
        line: number,
        source,
    })?;
    Ok(line.text)
}

/// Texts, each split into windows.
struct Windows<'a> {
    tokenizer: &'a Tokenizer,
    window: usize,
    /// Tokens that may still be added.
    remaining: usize,
    windows: Vec<Vec<u32>>,
}

impl Windows<'_> {
    fn add(&mut self, text: &str) -> Result<()> {
        if text.trim().is_empty() {
            return Ok(());
        }
        let mut ids = self.tokenizer.encode(text, true)?;
        ids.truncate(self.remaining);
        self.remaining -= ids.len();
        self.windows.extend(ids.chunks(self.window).map(<[u32]>::to_vec));
        Ok(())
    }
}
