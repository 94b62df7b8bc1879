//! Where `jetmoe mask` and `jetmoe routing` write what they draw.

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use jetmoe_checkpoint::AtomicFile;
use jetmoe_view::Window;
use terminal_size::{Width, terminal_size};

/// The file of a result, and the part of a long text that is drawn.
#[derive(Debug, Args)]
pub(crate) struct PictureArguments {
    /// Write the result to a file, which is complete or as it was before [default: standard output, as -]
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    output: Option<PathBuf>,
    /// The first token of text and pictures, counted from 1 as in them
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = HEADING)]
    from: usize,
    /// How many tokens text and pictures show [default: as many as are legible]
    #[arg(long, value_name = "N", help_heading = HEADING)]
    limit: Option<usize>,
}

const HEADING: &str = "Output";

impl PictureArguments {
    /// The part of a long text that is drawn.
    pub(crate) fn window(&self) -> Window {
        Window { first: self.from.saturating_sub(1), most: self.limit }
    }

    /// Whether the result is read on a terminal.
    pub(crate) fn is_for_terminal(&self) -> bool {
        self.file().is_none() && io::stdout().is_terminal()
    }

    /// The file; `None` for standard output.
    fn file(&self) -> Option<&Path> {
        self.output.as_deref().filter(|path| *path != Path::new("-"))
    }

    /// Writes a result, in the format of a name.
    pub(crate) fn write(&self, content: &[u8], format: &str) -> anyhow::Result<()> {
        match &self.output {
            Some(path) => {
                write_file(path, content).with_context(|| format!("cannot write {}", path.display()))
            }
            None => {
                anyhow::ensure!(
                    std::str::from_utf8(content).is_ok() || !io::stdout().is_terminal(),
                    "--format {format} is no text for a terminal\n  add --output FILE"
                );
                let mut output = io::stdout().lock();
                output.write_all(content)?;
                Ok(output.flush()?)
            }
        }
    }
}

/// Writes a file that is complete or not there. Links are followed, permissions of an existing file are kept, and devices and pipes
/// are written to.
fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let existing = match fs::metadata(path) {
        Ok(existing) => existing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return replace(path, content),
        Err(error) => return Err(error),
    };
    let mut opened = OpenOptions::new().write(true).open(path)?;
    if !existing.is_file() {
        return opened.write_all(content);
    }
    let target = path.canonicalize()?;
    replace(&target, content)?;
    fs::set_permissions(&target, existing.permissions())
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(content)?;
    file.commit()
}

/// Columns of the terminal; 80 where there is none.
pub(crate) fn terminal_width() -> usize {
    terminal_size().map_or(80, |(Width(columns), _)| usize::from(columns))
}

/// Whether text for the terminal has colours: by the convention of <https://no-color.org/>.
pub(crate) fn has_colors() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
