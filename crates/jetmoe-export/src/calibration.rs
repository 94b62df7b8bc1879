//! The text that quantization is calibrated with.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use jetmoe_checkpoint::{Checkpoint, Digest, names};
use jetmoe_text::Tokenizer;
use serde::Deserialize;

use crate::{Error, Result};

/// Calibration of 4-bit weights: text is run through the model in float32, and weights are rounded so that what the
/// products make of *these* inputs changes least (GPTQ).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calibration {
    /// A file of text like what the model will read: with the extension `jsonl` one JSON object with a field `text` a
    /// line, else plain text with blank lines between the texts.
    pub text: PathBuf,
    /// Tokens after which no more of it is read.
    pub max_tokens: usize,
}

/// Tokens that are attended over at once. Attention costs their square.
const WINDOW: usize = 512;

/// A text of that many bytes a token surely holds all the tokens that are asked for.
const BYTES_PER_TOKEN: usize = 64;

/// What calibration reads.
#[derive(Debug)]
pub(crate) struct CalibrationText {
    /// Digest of the file.
    pub(crate) digest: Digest,
    /// Token ids of every window.
    pub(crate) windows: Vec<Vec<u32>>,
}

impl Calibration {
    /// Tokens that are read if nobody says otherwise: with 2 of 8 experts a token, each expert sees some 4000.
    pub const DEFAULT_TOKENS: usize = 16384;

    /// Calibration with the default number of tokens of a file.
    pub fn new(text: impl Into<PathBuf>) -> Self {
        Calibration { text: text.into(), max_tokens: Self::DEFAULT_TOKENS }
    }

    /// Reads and encodes as much text as is asked for.
    pub(crate) fn read(&self, checkpoint: &Checkpoint) -> Result<CalibrationText> {
        let path = &self.text;
        let failed = |source| Error::Io { action: "read", path: path.clone(), source };
        let tokenizer = Tokenizer::open(checkpoint.folder())?.ok_or_else(|| Error::NoTokenizer {
            folder: checkpoint.folder().to_owned(),
            file: names::TOKENIZER,
        })?;
        let file = File::open(path).map_err(failed)?;
        let window = WINDOW.min(checkpoint.config().max_position_embeddings).max(1);
        let mut windows =
            Windows { tokenizer: &tokenizer, window, left: self.max_tokens, windows: Vec::new() };
        let is_json = path.extension().is_some_and(|extension| extension == "jsonl");
        let mut text = String::new();
        for (index, line) in BufReader::new(file).lines().enumerate() {
            let line = line.map_err(failed)?;
            if windows.left == 0 {
                break;
            } else if is_json {
                windows.add(&text_of(&line, path, index + 1)?)?;
            } else if line.trim().is_empty() || text.len() / BYTES_PER_TOKEN > windows.left {
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

/// The text of a line; an empty one of an empty line.
fn text_of(line: &str, path: &Path, number: usize) -> Result<String> {
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

/// Texts, each cut into windows.
struct Windows<'a> {
    tokenizer: &'a Tokenizer,
    window: usize,
    /// Tokens that may still be added.
    left: usize,
    windows: Vec<Vec<u32>>,
}

impl Windows<'_> {
    fn add(&mut self, text: &str) -> Result<()> {
        if text.trim().is_empty() {
            return Ok(());
        }
        let mut ids = self.tokenizer.encode(text, true)?;
        ids.truncate(self.left);
        self.left -= ids.len();
        self.windows.extend(ids.chunks(self.window).map(<[u32]>::to_vec));
        Ok(())
    }
}
