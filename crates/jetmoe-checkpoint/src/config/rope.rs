//! Parameters of the rotary embedding, by the rules of transformers' `modeling_rope_utils.py`.

use serde_json::Value;

use super::reader::ConfigReader;

/// Base and scaling of the rotary embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeParameters {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// How the frequencies are changed for longer contexts.
    pub scaling: RopeScaling,
}

/// How rotary frequencies are changed for longer contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Unchanged frequencies.
    Default,
    /// Every frequency divided by `factor`.
    Linear {
        /// Ratio of the new context length to the trained one.
        factor: f64,
    },
    /// YaRN (<https://arxiv.org/abs/2309.00071>): low frequencies are divided by `factor`, high ones kept, with a
    /// ramp in between; cosines and sines are multiplied by `attention_factor`.
    Yarn {
        /// Ratio of the new context length to the trained one.
        factor: f64,
        /// Context length of the training, in tokens.
        original_max_position_embeddings: usize,
        /// Factor on cosines and sines.
        attention_factor: f64,
        /// Rotations within the trained context above which a frequency is kept.
        beta_fast: f64,
        /// Rotations within the trained context below which a frequency is divided.
        beta_slow: f64,
        /// Whether the bounds of the ramp are rounded outwards to whole dimensions.
        truncate: bool,
    },
    /// Llama 3.1: wavelengths beyond `original_max_position_embeddings / low_freq_factor` are stretched by `factor`.
    Llama3 {
        /// Factor on the long wavelengths.
        factor: f64,
        /// Divisor of the context length that gives the shortest wavelength that is fully stretched.
        low_freq_factor: f64,
        /// Divisor of the context length that gives the longest wavelength that is unchanged.
        high_freq_factor: f64,
        /// Context length of the training, in tokens.
        original_max_position_embeddings: usize,
    },
}

const DEFAULT_THETA: f64 = 10_000.0;

/// Reads `rope_parameters`, or `rope_theta` and `rope_scaling` of older files. If a file has both, they must agree.
pub(super) fn read(reader: &mut ConfigReader<'_>, max_position_embeddings: usize) -> RopeParameters {
    let top_level = TopLevel {
        theta: reader.positive("rope_theta"),
        original_max_position_embeddings: reader
            .value("original_max_position_embeddings")
            .map(|_| reader.size(&["original_max_position_embeddings"], max_position_embeddings)),
        partial_rotary_factor: reader.value("partial_rotary_factor").cloned(),
        max_position_embeddings,
    };
    let mut found = Vec::new();
    for (key, prefix) in [("rope_scaling", "rope_scaling."), ("rope_parameters", "rope_parameters.")] {
        match reader.value(key) {
            None => {}
            Some(Value::Object(object)) if object.is_empty() => {}
            Some(Value::Object(object)) => {
                let mut section = ConfigReader::new(object, prefix);
                found.push(read_section(&mut section, &top_level));
                reader.extend_problems(section.into_problems());
            }
            Some(other) => reader.problem(key, format!("is {other}, expected an object")),
        }
    }
    match <[RopeParameters; 2]>::try_from(found) {
        Ok([scaling, parameters]) => {
            if scaling != parameters {
                reader.problem("rope_scaling", "contradicts rope_parameters; keep one of them");
            }
            parameters
        }
        Err(found) => found.into_iter().next().unwrap_or(RopeParameters {
            theta: top_level.theta.unwrap_or(DEFAULT_THETA),
            scaling: RopeScaling::Default,
        }),
    }
}

/// Keys at the top level of `config.json` that concern rotary embedding.
struct TopLevel {
    theta: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    partial_rotary_factor: Option<Value>,
    max_position_embeddings: usize,
}

fn read_section(section: &mut ConfigReader<'_>, top_level: &TopLevel) -> RopeParameters {
    let inner_theta = section.positive("rope_theta");
    if let (Some(inner), Some(top)) = (inner_theta, top_level.theta)
        && inner != top
    {
        section.problem("rope_theta", format!("is {inner}, but the top level says {top}; keep one of them"));
    }
    let theta = inner_theta.or(top_level.theta).unwrap_or(DEFAULT_THETA);
    let scaling = read_scaling(section, top_level);
    // transformers ignores the factor for the default type, and cannot run the other types with it
    let partial = section.value("partial_rotary_factor").or(top_level.partial_rotary_factor.as_ref());
    if let Some(partial) = partial
        && scaling != RopeScaling::Default
        && partial.as_f64() != Some(1.0)
    {
        section.problem("partial_rotary_factor", format!("is {partial}; JetMoE rotates whole heads, so 1.0"));
    }
    if let RopeScaling::Yarn { .. } = scaling
        && theta <= 1.0
    {
        section.problem("rope_theta", format!("is {theta}, expected more than 1 for yarn"));
    }
    RopeParameters { theta, scaling }
}

fn read_scaling(section: &mut ConfigReader<'_>, top_level: &TopLevel) -> RopeScaling {
    let kind = section.text("rope_type").or_else(|| section.text("type")).unwrap_or("default");
    // the top level takes precedence, as in transformers
    let original_positions = |section: &mut ConfigReader<'_>| match top_level.original_max_position_embeddings
    {
        Some(positions) => positions,
        None => section.size(&["original_max_position_embeddings"], top_level.max_position_embeddings),
    };
    match kind {
        "default" => RopeScaling::Default,
        "linear" => RopeScaling::Linear { factor: required(section, "factor") },
        "yarn" => {
            let original_max_position_embeddings = original_positions(section);
            // transformers replaces a `null` factor by the ratio of the lengths, and rejects a missing one
            let factor = if section.has("factor") {
                let ratio =
                    top_level.max_position_embeddings as f64 / original_max_position_embeddings as f64;
                section.positive("factor").unwrap_or(ratio)
            } else {
                required(section, "factor")
            };
            let beta_fast = section.number("beta_fast", 0.0).filter(|beta| *beta != 0.0).unwrap_or(32.0);
            let beta_slow = section.number("beta_slow", 0.0).filter(|beta| *beta != 0.0).unwrap_or(1.0);
            if beta_fast < beta_slow {
                section
                    .problem("beta_fast", format!("is {beta_fast}, below beta_slow, which is {beta_slow}"));
            }
            let mscale = section.number("mscale", 0.0).filter(|scale| *scale != 0.0);
            let mscale_all_dim = section.number("mscale_all_dim", 0.0).filter(|scale| *scale != 0.0);
            let attention_factor =
                section.number("attention_factor", 0.0).unwrap_or(match (mscale, mscale_all_dim) {
                    (Some(scale), Some(all)) => yarn_magnitude(factor, scale) / yarn_magnitude(factor, all),
                    _ => yarn_magnitude(factor, 1.0),
                });
            let truncate = section.boolean("truncate", true);
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings,
                attention_factor,
                beta_fast,
                beta_slow,
                truncate,
            }
        }
        "llama3" => {
            let low_freq_factor = required(section, "low_freq_factor");
            let high_freq_factor = required(section, "high_freq_factor");
            if high_freq_factor <= low_freq_factor && section.value("high_freq_factor").is_some() {
                section.problem(
                    "high_freq_factor",
                    format!("is {high_freq_factor}, expected more than low_freq_factor ({low_freq_factor})"),
                );
            }
            RopeScaling::Llama3 {
                factor: required(section, "factor"),
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: original_positions(section),
            }
        }
        other => {
            let key = if section.value("rope_type").is_some() { "rope_type" } else { "type" };
            section
                .problem(key, format!("{other:?} is not supported; known are default, linear, yarn, llama3"));
            RopeScaling::Default
        }
    }
}

/// YaRN's recommended magnitude of cosines and sines, 0.1 · scale · ln(factor) + 1.
fn yarn_magnitude(factor: f64, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
}

fn required(section: &mut ConfigReader<'_>, key: &'static str) -> f64 {
    if section.value(key).is_none() {
        section.problem(key, "is missing; this rope_type requires it");
    }
    section.positive(key).unwrap_or(1.0)
}
