//! What the plots share.

use anyhow::{Context, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub(crate) const BLUE: RGBColor = RGBColor(31, 98, 160);
pub(crate) const GRID: RGBColor = RGBColor(225, 225, 225);
pub(crate) const LABEL: (&str, i32) = ("sans-serif", 14);
pub(crate) const CAPTION: (&str, i32) = ("sans-serif", 20);

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// An SVG of this size, on white.
pub(crate) fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut drawing = String::new();
    {
        let area = SVGBackend::with_string(&mut drawing, size).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area).context("cannot draw the plot")?;
        area.present()?;
    }
    Ok(drawing)
}

/// Writes text at a place in pixels, centered vertically, to one side of it.
pub(crate) fn write_text(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    side: HPos,
    color: &RGBColor,
) -> Result<()> {
    let style = LABEL.into_text_style(area).color(color).pos(Pos::new(side, VPos::Center));
    Ok(area.draw(&Text::new(text, at, style))?)
}

/// Places in pixels for labels in one column: in the order of the wanted places, at least `distance` apart, and within
/// limits if they fit.
pub(crate) fn spread(wanted: &[i32], distance: i32, limits: (i32, i32)) -> Vec<i32> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|index| wanted[*index]);
    let mut places = wanted.to_vec();
    let mut free = limits.0;
    for &index in &order {
        places[index] = places[index].max(free);
        free = places[index] + distance;
    }
    let mut free = limits.1;
    for &index in order.iter().rev() {
        places[index] = places[index].min(free);
        free = places[index] - distance;
    }
    places
}

/// A rectangle in pixels: left, top, right, bottom.
type Rectangle = (i32, i32, i32, i32);

fn overlap(one: Rectangle, other: Rectangle) -> bool {
    one.0 < other.2 && other.0 < one.2 && one.1 < other.3 && other.1 < one.3
}

/// Half the side of the square that a point covers.
const POINT: i32 = 6;
/// Half the height of a label.
const LABEL_HEIGHT: i32 = 9;

/// Pixels that a label is wide, at most.
fn label_width(text: &str) -> i32 {
    8 * text.chars().count() as i32
}

/// A place in pixels for the label of each point, and the side of the place that the text is on. No label covers a point or
/// another label, as long as there is space near its point.
pub(crate) fn place_labels(
    points: &[(i32, i32)],
    texts: &[&str],
    within: Rectangle,
) -> Vec<((i32, i32), HPos)> {
    let square = |(x, y): &(i32, i32)| (x - POINT, y - POINT, x + POINT, y + POINT);
    let mut taken: Vec<Rectangle> = points.iter().map(square).collect();
    let mut places = Vec::new();
    for (&(x, y), text) in points.iter().zip(texts) {
        let covered = |&((x, y), side): &((i32, i32), HPos)| {
            let width = label_width(text);
            let left = match side {
                HPos::Left => x,
                HPos::Right => x - width,
                HPos::Center => x - width / 2,
            };
            (left, y - LABEL_HEIGHT, left + width, y + LABEL_HEIGHT)
        };
        let is_free = |place: &((i32, i32), HPos)| {
            let label = covered(place);
            let is_inside =
                label.0 >= within.0 && label.1 >= within.1 && label.2 <= within.2 && label.3 <= within.3;
            is_inside && !taken.iter().any(|other| overlap(label, *other))
        };
        // beside the point, then further and further above and below it
        let candidates = (0..8).flat_map(|step| {
            let away = step * LABEL_HEIGHT;
            [-away, away].into_iter().flat_map(move |dy| {
                let beside = [((x + POINT + 3, y + dy), HPos::Left), ((x - POINT - 3, y + dy), HPos::Right)];
                beside.into_iter().chain([((x, y + dy), HPos::Center)])
            })
        });
        let place = candidates.into_iter().find(is_free).unwrap_or(((x + POINT + 3, y), HPos::Left));
        taken.push(covered(&place));
        places.push(place);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_in_a_column_are_moved_apart_in_their_order() {
        assert_eq!(spread(&[50, 10, 52], 20, (0, 100)), [50, 10, 70]);
        assert_eq!(spread(&[95, 99], 20, (0, 100)), [80, 100]);
        assert_eq!(spread(&[0, 0, 0], 20, (5, 100)), [5, 25, 45]);
    }

    #[test]
    fn a_label_covers_neither_a_point_nor_another_label() {
        let points = [(100, 100), (112, 101), (112, 112), (104, 96), (390, 100), (100, 100)];
        let texts = ["first", "second", "third", "fourth", "at the edge", "on the first"];
        let within = (0, 0, 400, 200);
        let places = place_labels(&points, &texts, within);
        let labels: Vec<Rectangle> = places
            .iter()
            .zip(texts)
            .map(|(((x, y), side), text)| {
                let width = label_width(text);
                let left = match side {
                    HPos::Left => *x,
                    HPos::Right => x - width,
                    HPos::Center => x - width / 2,
                };
                (left, y - LABEL_HEIGHT, left + width, y + LABEL_HEIGHT)
            })
            .collect();
        for (index, label) in labels.iter().enumerate() {
            assert!(label.0 >= within.0 && label.2 <= within.2, "{index}: {label:?}");
            for (x, y) in points {
                assert!(
                    !overlap(*label, (x - 5, y - 5, x + 5, y + 5)),
                    "{index} covers ({x}, {y}): {label:?}"
                );
            }
            assert!(labels[..index].iter().all(|other| !overlap(*label, *other)), "{index}: {labels:?}");
        }
    }
}
