//! Folders of results, one for each processor, with their pages, and the page that shows them side by side.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command;
use crate::processor::Processor;
use crate::rounds::Rounds;

/// Name and text of a file.
pub(crate) type File = (&'static str, String);

/// A benchmark whose results are kept.
pub(crate) struct Benchmark {
    /// Folder of the index, with a folder for each processor.
    pub(crate) root: &'static str,
    /// Renders the files next to raw results: plot and page.
    pub(crate) render: fn(&Rounds<'_>) -> Result<Vec<File>>,
    /// Renders the page that shows all results side by side.
    pub(crate) index: fn(&[Stored]) -> Result<String>,
}

/// Raw results in a folder.
pub(crate) struct Stored {
    /// Relative to the index, with `/`.
    pub(crate) folder: String,
    pub(crate) raw: Value,
}

/// The file with the raw results.
const RAW: &str = "raw.json";
/// The page of a folder.
const PAGE: &str = "README.md";

impl Benchmark {
    /// Writes what was measured on this machine, as [`Benchmark::write`], into `output`, or else into the folder of this processor or
    /// a folder below it.
    pub(crate) fn write_measured(
        &self,
        output: Option<&Path>,
        below: Option<&str>,
        mut raw: Value,
    ) -> Result<()> {
        let processor = Processor::detect();
        processor.write_to(&mut raw);
        let mut own = Path::new(self.root).join(processor.slug());
        own.extend(below);
        self.write(output.unwrap_or(&own), &raw)
    }

    /// Writes raw results into a folder with their pages, and the index anew if the folder is below it.
    fn write(&self, folder: &Path, raw: &Value) -> Result<()> {
        // first, because it took long to measure
        command::write_files(folder, &[(RAW, &format!("{raw:#}\n"))])?;
        for (name, text) in (self.render)(&Rounds { raw })? {
            if name == PAGE {
                println!("\n{text}");
            }
            command::write_files(folder, &[(name, &text)])?;
        }
        let root = Path::new(self.root);
        if folder.starts_with(root) {
            command::write_files(root, &[(PAGE, &(self.index)(&stored(root)?)?)])?;
        }
        Ok(())
    }

    /// Renders every page and plot from the raw results below a root: paths relative to it, and texts.
    pub(crate) fn render_all(&self, root: &Path) -> Result<Vec<(PathBuf, String)>> {
        let all = stored(root)?;
        let mut files = vec![(PathBuf::from(PAGE), (self.index)(&all)?)];
        for Stored { folder, raw } in &all {
            let rendered =
                (self.render)(&Rounds { raw }).with_context(|| format!("cannot render {folder}"))?;
            files.extend(rendered.into_iter().map(|(name, text)| (Path::new(folder).join(name), text)));
        }
        Ok(files)
    }

    /// Writes every page and plot anew.
    pub(crate) fn write_all(&self) -> Result<()> {
        let root = Path::new(self.root);
        for (path, text) in self.render_all(root)? {
            let path = root.join(path);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// All raw results below a folder, sorted by their folders.
fn stored(root: &Path) -> Result<Vec<Stored>> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        for entry in fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                folders.push(if folder.is_empty() { name } else { format!("{folder}/{name}") });
            } else if name == RAW {
                let path = entry.path();
                let text =
                    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                let raw =
                    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
                found.push(Stored { folder: folder.clone(), raw });
            }
        }
    }
    found.sort_by(|left, right| left.folder.cmp(&right.folder));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{layers, models, serving};

    #[test]
    fn committed_pages_and_plots_are_those_of_their_raw_results() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for benchmark in [models::BENCHMARK, layers::BENCHMARK, serving::BENCHMARK] {
            let root = repository.join(benchmark.root);
            let files = benchmark.render_all(&root).unwrap();
            assert!(files.len() > 1, "no results in {}", root.display());
            for (path, text) in files {
                let path = root.join(path);
                let committed = fs::read_to_string(&path).unwrap_or_default();
                assert_eq!(committed, text, "{}: run `cargo xtask bench --pages`", path.display());
            }
        }
    }

    #[test]
    fn results_are_found_in_folders_below_others() {
        let root = command::work_folder("pages-test").unwrap();
        command::clear(&root).unwrap();
        for folder in ["b", "a/full-size", "a", "empty"] {
            command::write_files(&root.join(folder), &[]).unwrap();
        }
        for folder in ["b", "a/full-size", "a"] {
            command::write_files(&root.join(folder), &[(RAW, "{}")]).unwrap();
        }
        let folders: Vec<String> = stored(&root).unwrap().into_iter().map(|stored| stored.folder).collect();
        assert_eq!(folders, ["a", "a/full-size", "b"]);
        command::clear(&root).unwrap();
    }
}
