//! Output folders that hold something before an export: an artifact with a mutated manifest, links, pipes, other folders.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Result;
use jetmoe_artifact::names as artifact_names;
use jetmoe_fuzz::{Choices, copy_folder, mutate_json_text};

use super::bases::{BASES, Base, Bases};
use super::input::{files, is_artifact, replace_file};

/// Fills `output`, which does not exist.
pub(crate) fn prepare(output: &Path, bases: &Bases, choices: &mut Choices<'_>) -> Result<()> {
    let artifacts: Vec<&Base> =
        BASES.iter().filter(|base| is_artifact(base) && !base.is_classifier).collect();
    match choices.pick(&artifacts) {
        Some(base) if !choices.once_in(4) => copy_folder(&bases.path(base.name), output)?,
        _ => fs::create_dir(output)?,
    }
    let manifest = output.join(artifact_names::MANIFEST);
    if manifest.is_file() && choices.once_in(2) {
        fs::write(&manifest, mutate_json_text(&fs::read(&manifest)?, choices))?;
    }
    if choices.once_in(2) {
        plant_link(output, choices)?;
    }
    let mut existing = files(output)?;
    existing.sort();
    if let Some(file) = choices.pick(&existing)
        && choices.once_in(2)
    {
        replace_file(file, choices)?;
    }
    Ok(())
}

/// Puts a link out of the folder where an export writes or removes something.
fn plant_link(output: &Path, choices: &mut Choices<'_>) -> Result<()> {
    let staging = artifact_names::UNFINISHED;
    let places = [
        artifact_names::GRAPH_FOLDER.to_owned(),
        format!("{}/native", artifact_names::GRAPH_FOLDER),
        format!("{}/model.onnx", artifact_names::GRAPH_FOLDER),
        staging.to_owned(),
        format!("{staging}/lock"),
        format!("{staging}/{}", artifact_names::MANIFEST),
        format!("{staging}/{}", artifact_names::GRAPH_FOLDER),
        artifact_names::MANIFEST.to_owned(),
        artifact_names::GENAI_CONFIG.to_owned(),
        "additional_chat_templates".to_owned(),
    ];
    let place = output.join(choices.pick(&places).map_or("", String::as_str));
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    if place.is_dir() {
        fs::remove_dir_all(&place)?;
    } else if place.exists() {
        fs::remove_file(&place)?;
    }
    let depth = place.strip_prefix(output)?.components().count();
    let target = if choices.once_in(2) { "outside" } else { "outside/kept.txt" };
    symlink(format!("{}{target}", "../".repeat(depth)), &place)?;
    Ok(())
}
