//! Notes about a checkpoint's settings for generation.

use jetmoe_rt::{GenerationConfig, ModelConfig};

use crate::note;

/// Names the settings of `generation_config.json` that are not applied and its unknown keys, and says what a file without
/// `eos_token_id` means.
pub fn note_settings(settings: &GenerationConfig, config: &ModelConfig) {
    let lines: Vec<String> = settings.not_applied().iter().map(|setting| format!("\n  {setting}")).collect();
    if !lines.is_empty() {
        note(&format!("generation_config.json has settings that are not applied:{}", lines.concat()));
    }
    if let Some(names) = list_names(settings.unknown_keys()) {
        note(&format!("generation_config.json has unknown keys, which have no effect: {names}"));
    }
    if settings.eos_token_ids.is_empty() && !config.eos_token_ids.is_empty() {
        note(&format!(
            "generation_config.json names no eos_token_id, so only a limit or a stop string ends a text; config.json names {:?}",
            config.eos_token_ids
        ));
    }
}

/// The first names and the number of the others, in one line. `None` without a name. Names are a file's, so each is cut and
/// its control characters are escaped.
fn list_names(names: &[String]) -> Option<String> {
    const MOST_NAMES: usize = 5;
    const MOST_CHARACTERS: usize = 40;
    let shown = names.iter().take(MOST_NAMES);
    let shown: Vec<String> =
        shown.map(|name| name.escape_debug().take(MOST_CHARACTERS).collect::<String>()).collect();
    match names.len().saturating_sub(MOST_NAMES) {
        _ if shown.is_empty() => None,
        0 => Some(shown.join(", ")),
        others => Some(format!("{} and {others} more", shown.join(", "))),
    }
}

#[cfg(test)]
mod tests;
