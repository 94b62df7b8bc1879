//! Attention masks: what a cell of one means, and the part of it that is drawn.

use jetmoe_observe::{AttentionMask, SequenceMask};

use crate::error::{Error, Result};

pub(crate) mod plot;
pub(crate) mod text;
pub(crate) mod window;

/// Whether a token attends to another one, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    /// It attends to a token of the same step.
    Visible,
    /// It attends to a token of an earlier step, whose key and value are cached.
    Cached,
    /// It attends to itself.
    Itself,
    /// It does not attend to the token.
    Hidden,
    /// One of both is padding, and it is not attended to.
    Padding,
    /// It attends to padding: a mistake of the model or of its inputs.
    VisiblePadding,
}

impl Cell {
    pub(crate) const ALL: [Cell; 6] =
        [Cell::Visible, Cell::Cached, Cell::Itself, Cell::Hidden, Cell::Padding, Cell::VisiblePadding];

    pub(crate) fn of(sequence: &SequenceMask, query: usize, key: usize) -> Cell {
        let (from, to) = (&sequence.tokens[query], &sequence.tokens[key]);
        match (sequence.visible[query][key], from.is_padding() || to.is_padding()) {
            (true, true) => Cell::VisiblePadding,
            (false, true) => Cell::Padding,
            (false, false) => Cell::Hidden,
            (true, false) if query == key => Cell::Itself,
            (true, false) if to.step < from.step => Cell::Cached,
            (true, false) => Cell::Visible,
        }
    }

    /// What the legend says.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Cell::Visible => "attends to it",
            Cell::Cached => "attends to it, from the cache",
            Cell::Itself => "itself",
            Cell::Hidden => "does not attend to it",
            Cell::Padding => "padding",
            Cell::VisiblePadding => "attends to padding: a mistake",
        }
    }
}

/// Whether a step of the model begins with this token: the one before was computed by another.
pub(crate) fn begins_step(sequence: &SequenceMask, token: usize) -> bool {
    token > 0 && sequence.tokens[token - 1].step != sequence.tokens[token].step
}

/// Checks that every mask is a square with a token for each row.
pub(crate) fn check(mask: &AttentionMask) -> Result<()> {
    if mask.sequences.iter().all(|sequence| sequence.tokens.is_empty()) {
        return Err(Error::Empty { what: "the mask" });
    }
    for (index, sequence) in mask.sequences.iter().enumerate() {
        let expected = sequence.tokens.len();
        let sizes = std::iter::once(sequence.visible.len()).chain(sequence.visible.iter().map(Vec::len));
        for found in sizes {
            if found != expected {
                let what = format!("rows and columns of the mask of sequence {index}");
                return Err(Error::Inconsistent { what, expected, found });
            }
        }
    }
    Ok(())
}

/// Model, precision and backend, for the caption.
pub(crate) fn model_line(model: &jetmoe_observe::ObservedModel) -> String {
    format!("{}, {}, {}", model.precision, model.profile, crate::label::display_text(&model.backend))
}
