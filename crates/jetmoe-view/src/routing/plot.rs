//! A routing as pictures: load of every expert by layer, margin of every token by layer.

use jetmoe_observe::Routing;

use super::{CheckedRouting, balance_of, part_name};
use crate::error::Result;
use crate::heat_map::{ColumnLabels, HeatMap, Ramp};
use crate::label::{cut, token_label, visible_spaces};
use crate::mask::{model_line, window::Window};
use crate::picture::{Anchor, INK, MUTED, Picture, TextSize, pixels};
use crate::png::{Characters, svg_to_png};

/// Tokens that are legible as columns.
const MOST_TOKENS: usize = 256;
const MOST_TEXT: usize = 18;
const CAPTION: usize = 64;
const EDGE: usize = 20;
/// A margin from which on a token has the palest colour, in logits.
const LARGE_MARGIN: f64 = 1.0;

/// The load of every expert as SVG: layers by experts, a heat map for attention and one for the MLP. A cell is the share of tokens that
/// take the expert, in percent, where a number fits.
///
/// # Errors
/// There is no token, or sizes in the routing disagree.
pub fn load_svg(routing: &Routing) -> Result<String> {
    draw_loads(routing, Characters::All)
}

/// The same as PNG, in twice the size.
///
/// # Errors
/// As for [`load_svg`], and a picture of more than 67 million pixels.
pub fn load_png(routing: &Routing) -> Result<Vec<u8>> {
    svg_to_png(&draw_loads(routing, Characters::OfFont)?)
}

/// The margin of every choice as SVG: layers by tokens, a heat map for attention and one for the MLP. A dark cell is a small margin:
/// there another precision is most likely to choose other experts. At most 256 tokens, from `window.first` on; padding is left out, and
/// the sequences of a batch follow each other.
///
/// # Errors
/// There is no token, or sizes in the routing disagree.
pub fn margin_svg(routing: &Routing, window: Window) -> Result<String> {
    draw_margins(routing, window, Characters::All)
}

/// The same as PNG, in twice the size. Characters that DejaVu Sans lacks are shown by their code, as in `\u{65e5}`.
///
/// # Errors
/// As for [`margin_svg`], and a picture of more than 67 million pixels.
pub fn margin_png(routing: &Routing, window: Window) -> Result<Vec<u8>> {
    svg_to_png(&draw_margins(routing, window, Characters::OfFont)?)
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

fn draw_caption(picture: &Picture<'_>, caption: &str, facts: &str) -> Result<()> {
    picture.text(caption, (pixels(EDGE), 24), Anchor::Start, TextSize::Caption, INK)?;
    picture.text(facts, (pixels(EDGE), 46), Anchor::Start, TextSize::Label, MUTED)
}

fn draw_loads(routing: &Routing, characters: Characters) -> Result<String> {
    let checked = CheckedRouting::new(routing)?;
    let experts = routing.experts;
    let maps: Vec<_> = checked
        .parts
        .iter()
        .map(|part| HeatMap {
            title: part_name(part.part).to_owned(),
            axes: format!(
                "layers (rows) by experts (columns); balance loss {:.2}, {} if balanced",
                balance_of(&routing.balance_loss, part.part),
                routing.experts_per_token
            ),
            rows: numbers(checked.layers()),
            columns: numbers(experts),
            column_labels: ColumnLabels::Flat,
            cell: ((360 / experts).clamp(6, 40), 20),
            ramp: Ramp::Blue,
        })
        .collect();
    // the share of tokens: that of assignments, as often as a token has one
    let share = |share: f64| share * routing.experts_per_token as f64;
    let routers = checked.parts.iter().flat_map(|part| &part.layers);
    let most = routers.flat_map(|router| &router.observation.load).map(|load| share(load.share));
    let most = most.fold(0.0, f64::max);

    let gap = 40;
    let step = maps[0].width().max(360) + gap;
    let height = CAPTION + maps[0].height();
    let size = (EDGE * 2 + step * maps.len(), height + 50);
    let title = format!("Load of every expert, {}", model_line(&routing.model));
    Picture::draw("the loads", &title, size, |picture| {
        let facts = format!("{}; {} tokens", model_line(&routing.model), checked.tokens.len());
        draw_caption(picture, "Load of every expert, in percent of the tokens", &characters.shown(&facts))?;
        for (index, (map, part)) in maps.iter().zip(&checked.parts).enumerate() {
            map.draw(picture, (EDGE + index * step, CAPTION), |row, column| {
                let share = share(part.layers[row].observation.load[column].share);
                Some((if most > 0.0 { share / most } else { 0.0 }, format!("{:.0}", 100.0 * share)))
            })?;
        }
        let ends = ("0 %", format!("{:.0} %", 100.0 * most));
        HeatMap::draw_legend(picture, Ramp::Blue, (ends.0, &ends.1), (EDGE, height + 8))?;
        let even = 100.0 * routing.experts_per_token as f64 / experts as f64;
        let even = format!("{even:.1} % if all experts of a layer have the same load");
        picture.text(&even, (pixels(EDGE), pixels(height + 36)), Anchor::Start, TextSize::Label, MUTED)
    })
}

fn draw_margins(routing: &Routing, window: Window, characters: Characters) -> Result<String> {
    let checked = CheckedRouting::new(routing)?;
    let range = window.range(checked.tokens.len(), MOST_TOKENS);
    let mut any_cut = false;
    let labels: Vec<_> = range
        .clone()
        .map(|token| {
            let label = characters.shown(&visible_spaces(&token_label(checked.tokens[token])));
            let (label, was_cut) = cut(&label, MOST_TEXT);
            any_cut |= was_cut;
            format!("{}  {label}", token + 1)
        })
        .collect();
    let maps: Vec<_> = checked
        .parts
        .iter()
        .map(|part| HeatMap {
            title: part_name(part.part).to_owned(),
            axes: "layers (rows) by tokens (columns)".to_owned(),
            rows: numbers(checked.layers()),
            columns: labels.clone(),
            column_labels: ColumnLabels::Upwards,
            cell: ((1000 / range.len()).clamp(4, 18), 14),
            ramp: Ramp::Orange,
        })
        .collect();
    let height = CAPTION + maps.iter().map(HeatMap::height).sum::<usize>();
    let size = ((EDGE * 2 + maps[0].width()).max(640), height + 50);
    let title = format!("Margin of every choice, {}", model_line(&routing.model));
    Picture::draw("the margins", &title, size, |picture| {
        let facts = format!("{}. Dark: the choice is a close one.", model_line(&routing.model));
        draw_caption(picture, "Margin of every choice of experts", &characters.shown(&facts))?;
        let mut top = CAPTION;
        for (map, part) in maps.iter().zip(&checked.parts) {
            map.draw(picture, (EDGE, top), |row, column| {
                let margin = part.layers[row].choices[range.start + column].margin?;
                Some((1.0 - f64::from(margin) / LARGE_MARGIN, String::new()))
            })?;
            top += map.height();
        }
        HeatMap::draw_legend(
            picture,
            Ramp::Orange,
            ("1 or more", "0 (difference of logits)"),
            (EDGE, height + 8),
        )?;
        let mut notes = Vec::new();
        if range.len() < checked.tokens.len() {
            notes.push(format!("Tokens {} to {} of {}.", range.start + 1, range.end, checked.tokens.len()));
        }
        if any_cut {
            notes.push(format!("Texts are cut to {MOST_TEXT} columns."));
        }
        let place = (pixels(EDGE), pixels(height + 36));
        picture.text(&notes.join(" "), place, Anchor::Start, TextSize::Label, MUTED)
    })
}
