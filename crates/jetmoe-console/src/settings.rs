//! Notes about a checkpoint's settings for generation.

use jetmoe_rt::{GenerationConfig, ModelConfig};

use crate::note;

/// Names the settings of `generation_config.json` that are not applied, and says what a file without `eos_token_id` means.
pub fn note_settings(settings: &GenerationConfig, config: &ModelConfig) {
    let lines: Vec<String> = settings.not_applied().iter().map(|setting| format!("\n  {setting}")).collect();
    if !lines.is_empty() {
        note(&format!("generation_config.json has settings that are not applied:{}", lines.concat()));
    }
    if settings.eos_token_ids.is_empty() && !config.eos_token_ids.is_empty() {
        note(&format!(
            "generation_config.json names no eos_token_id, so only a limit or a stop string ends a text; config.json names {:?}",
            config.eos_token_ids
        ));
    }
}
