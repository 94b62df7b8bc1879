//! The data of a page, as JSON with arrays in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use half::f16;
use jetmoe_observe::TokenRouting;
use serde::Serialize;

use super::PageText;
use crate::error::{Error, Result};
use crate::label::{display_text, token_label};
use crate::routing::{CheckedRouting, Part, balance_of, part_name};

/// A margin below which a choice is a close one, in logits, until the reader changes it.
const THRESHOLD: f32 = 0.1;

/// Bytes of probabilities that a page holds before base64; more are left out.
const MOST_PROBABILITIES: usize = 1 << 20;

/// `page/data.js` reads it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Data<'r> {
    #[serde(skip)]
    model: String,
    lead: String,
    notice: Option<String>,
    layers: usize,
    mixtures: Vec<Mixture>,
    threshold: f32,
    same_tokens: bool,
    runs: Vec<Run<'r>>,
}

#[derive(Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Mixture {
    name: &'static str,
    experts: usize,
    per_token: usize,
}

#[derive(Serialize)]
struct Run<'r> {
    name: String,
    facts: Vec<(&'r str, String)>,
    tokens: Vec<String>,
    ids: Vec<u32>,
    /// Tokens after which the text has a line break.
    breaks: Vec<usize>,
    /// The first token of each sequence.
    starts: &'r [usize],
    routing: Vec<MixtureArrays>,
}

/// Arrays by layer and token in base64, with little-endian elements: 16-bit integers, float16, or bytes.
#[derive(Serialize)]
struct MixtureArrays {
    experts: String,
    gates: String,
    margin: Option<String>,
    entropy: String,
    probabilities: Option<String>,
    balance: f64,
}

impl<'r> Data<'r> {
    pub(super) fn new(runs: &'r [CheckedRouting<'r>], same_tokens: bool, text: &PageText) -> Result<Self> {
        let mixtures = mixtures_of(&runs[0]);
        for run in runs {
            if run.layers() != runs[0].layers() {
                let (expected, found) = (runs[0].layers(), run.layers());
                return Err(Error::Inconsistent {
                    what: "layers of the second routing".into(),
                    expected,
                    found,
                });
            }
            if mixtures_of(run) != mixtures {
                let (expected, found) = (runs[0].routing.experts, run.routing.experts);
                let what = "parts and experts of the second routing".into();
                return Err(Error::Inconsistent { what, expected, found });
            }
            if same_tokens && run.tokens.len() != runs[0].tokens.len() {
                let (expected, found) = (runs[0].tokens.len(), run.tokens.len());
                return Err(Error::Inconsistent {
                    what: "tokens of the second routing".into(),
                    expected,
                    found,
                });
            }
        }
        let size = |run: &CheckedRouting<'_>| {
            run.tokens.len() * run.layers() * run.parts.len() * run.routing.experts
        };
        let with_probabilities = runs.iter().map(size).sum::<usize>() <= MOST_PROBABILITIES;
        let notice = (!with_probabilities).then(|| {
            "The text is long: probabilities of rejected experts are left out of this page.".to_owned()
        });
        let model = display_text(&text.model);
        Ok(Data {
            lead: lead(&model, &runs[0]),
            model,
            notice,
            layers: runs[0].layers(),
            mixtures,
            threshold: THRESHOLD,
            same_tokens,
            runs: runs
                .iter()
                .enumerate()
                .map(|(index, run)| {
                    let name = text.names.get(index).map_or_else(String::new, |name| display_text(name));
                    let name = if name.is_empty() { run.routing.model.precision.to_string() } else { name };
                    Run::new(run, name, with_probabilities)
                })
                .collect(),
        })
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }
}

fn lead(model: &str, run: &CheckedRouting<'_>) -> String {
    let (chosen, all) = (run.routing.experts_per_token, run.routing.experts);
    format!(
        "{model} computes only {chosen} of {all} experts for a token, in each mixture of each layer. A router chooses them. This page \
         shows every choice."
    )
}

fn mixtures_of(run: &CheckedRouting<'_>) -> Vec<Mixture> {
    let (experts, per_token) = (run.routing.experts, run.routing.experts_per_token);
    run.parts.iter().map(|part| Mixture { name: part_name(part.part), experts, per_token }).collect()
}

impl<'r> Run<'r> {
    fn new(run: &'r CheckedRouting<'r>, name: String, with_probabilities: bool) -> Self {
        let model = &run.routing.model;
        let facts = vec![
            ("Precision", model.precision.to_string()),
            ("Profile", model.profile.to_string()),
            ("Backend", display_text(&model.backend)),
        ];
        let breaks = run.tokens.iter().enumerate();
        let breaks = breaks.filter(|(_, token)| token.text.as_ref().is_some_and(|text| text.contains('\n')));
        Run {
            name,
            facts,
            tokens: run.tokens.iter().map(|token| token_label(token)).collect(),
            ids: run.tokens.iter().map(|token| token.id).collect(),
            breaks: breaks.map(|(index, _)| index).collect(),
            starts: &run.starts,
            routing: run
                .parts
                .iter()
                .map(|part| {
                    MixtureArrays::new(
                        part,
                        with_probabilities,
                        balance_of(&run.routing.balance_loss, part.part),
                    )
                })
                .collect(),
        }
    }
}

impl MixtureArrays {
    fn new(part: &Part<'_>, with_probabilities: bool, balance: f64) -> Self {
        let choices = || part.layers.iter().flat_map(|router| router.choices.iter().copied());
        // the check of the routing compares every expert with their number
        let expert = |&expert: &usize| u16::try_from(expert).unwrap_or(u16::MAX).to_le_bytes();
        let gate = |&gate: &f32| ((f64::from(gate).clamp(0.0, 1.0) * 65535.0).round() as u16).to_le_bytes();
        let float = |value: f32| f16::from_f32(value).to_le_bytes();
        let margins = choices().map(|choice| choice.margin);
        let has_margins = choices().any(|choice| choice.margin.is_some());
        MixtureArrays {
            experts: encode(choices().flat_map(|choice| choice.experts.iter().flat_map(expert))),
            gates: encode(choices().flat_map(|choice| choice.gates.iter().flat_map(gate))),
            margin: has_margins.then(|| encode(margins.flat_map(|margin| float(margin.unwrap_or(f32::NAN))))),
            entropy: encode(choices().flat_map(|choice| float(choice.entropy))),
            probabilities: with_probabilities.then(|| encode(choices().flat_map(probabilities))),
            balance,
        }
    }
}

/// The probabilities of the experts, in 255ths.
fn probabilities(choice: &TokenRouting) -> impl Iterator<Item = u8> {
    choice.probabilities().into_iter().map(|probability| (255.0 * probability).round() as u8)
}

fn encode(bytes: impl Iterator<Item = u8>) -> String {
    STANDARD.encode(bytes.collect::<Vec<u8>>())
}
