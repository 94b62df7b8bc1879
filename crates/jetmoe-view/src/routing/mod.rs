//! Routings: checked, without padding, and by part and layer.

use jetmoe_observe::{BalanceLoss, ObservedToken, RouterObservation, RouterPart, Routing, TokenRouting};

use crate::error::{Error, Result};

mod plot;

pub use plot::{load_png, load_svg, margin_png, margin_svg};

/// A routing whose sizes agree, with its tokens one after the other.
pub(crate) struct CheckedRouting<'r> {
    pub(crate) routing: &'r Routing,
    /// All tokens but padding.
    pub(crate) tokens: Vec<&'r ObservedToken>,
    /// Where each sequence with tokens begins in `tokens`.
    pub(crate) starts: Vec<usize>,
    /// The parts that have routers, with one router for each layer.
    pub(crate) parts: Vec<Part<'r>>,
}

/// The routers of one part of the layers.
pub(crate) struct Part<'r> {
    pub(crate) part: RouterPart,
    pub(crate) layers: Vec<Router<'r>>,
}

pub(crate) struct Router<'r> {
    pub(crate) observation: &'r RouterObservation,
    /// Its choices, in the order of [`CheckedRouting::tokens`].
    pub(crate) choices: Vec<&'r TokenRouting>,
}

impl<'r> CheckedRouting<'r> {
    pub(crate) fn new(routing: &'r Routing) -> Result<Self> {
        let (mut tokens, mut starts) = (Vec::new(), Vec::new());
        for sequence in &routing.sequences {
            let start = tokens.len();
            tokens.extend(sequence.iter().filter(|token| !token.is_padding()));
            if tokens.len() > start {
                starts.push(start);
            }
        }
        if tokens.is_empty() || routing.routers.is_empty() {
            return Err(Error::Empty { what: "the routing" });
        }
        let mut parts: Vec<Part<'r>> = Vec::new();
        for observation in &routing.routers {
            let router = Router::new(routing, observation, tokens.len())?;
            let index = parts.iter().position(|part| part.part == observation.part).unwrap_or_else(|| {
                parts.push(Part { part: observation.part, layers: Vec::new() });
                parts.len() - 1
            });
            let layers = &mut parts[index].layers;
            let name = part_name(observation.part);
            check_equal(|| format!("the layer of the next {name} router"), layers.len(), observation.layer)?;
            layers.push(router);
        }
        let layers = parts[0].layers.len();
        for part in &parts {
            check_equal(|| format!("{} routers", part_name(part.part)), layers, part.layers.len())?;
        }
        Ok(CheckedRouting { routing, tokens, starts, parts })
    }

    pub(crate) fn layers(&self) -> usize {
        self.parts[0].layers.len()
    }
}

impl<'r> Router<'r> {
    fn new(routing: &Routing, observation: &'r RouterObservation, tokens: usize) -> Result<Self> {
        let name = || format!("{} router of layer {}", part_name(observation.part), observation.layer);
        let choices: Vec<_> = observation.tokens.iter().flatten().flatten().collect();
        check_equal(|| format!("tokens of the {}", name()), tokens, choices.len())?;
        check_equal(|| format!("loads of the {}", name()), routing.experts, observation.load.len())?;
        for choice in &choices {
            for found in [choice.experts.len(), choice.gates.len()] {
                check_equal(
                    || format!("experts of a token in the {}", name()),
                    routing.experts_per_token,
                    found,
                )?;
            }
            check_equal(
                || format!("logits of a token in the {}", name()),
                routing.experts,
                choice.logits.len(),
            )?;
            if let Some(&expert) = choice.experts.iter().find(|&&expert| expert >= routing.experts) {
                let what = format!("the number of an expert in the {}, less than", name());
                return Err(Error::Inconsistent { what, expected: routing.experts, found: expert });
            }
        }
        Ok(Router { observation, choices })
    }
}

fn check_equal(what: impl FnOnce() -> String, expected: usize, found: usize) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::Inconsistent { what: what(), expected, found }) }
}

/// The name of a part in texts for people.
pub(crate) fn part_name(part: RouterPart) -> &'static str {
    match part {
        RouterPart::Attention => "Attention",
        RouterPart::Mlp => "MLP",
    }
}

pub(crate) fn balance_of(loss: &BalanceLoss, part: RouterPart) -> f64 {
    match part {
        RouterPart::Attention => loss.attention,
        RouterPart::Mlp => loss.mlp,
    }
}
