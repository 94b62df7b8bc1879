use std::collections::BTreeMap;

use jetmoe_view::{Error, TextStyle, Window, mask_png, mask_svg, mask_text};
use resvg::usvg::roxmltree::Document;

use crate::synthetic::{mask, sequence};

fn style(width: usize) -> TextStyle {
    TextStyle { width, ..TextStyle::default() }
}

#[test]
fn a_batch_with_padding_and_steps_as_text() {
    let batch = mask(vec![sequence(3, &[8, 1, 1]), sequence(0, &[6, 5, 1, 1])]);
    insta::assert_snapshot!(mask_text(&batch, &style(80)).unwrap());
}

#[test]
fn a_long_text_says_what_is_left_out() {
    let long = mask(vec![sequence(0, &[100])]);
    let window = Window { first: 60, most: Some(12) };
    insta::assert_snapshot!(mask_text(&long, &TextStyle { window, ..style(80) }).unwrap());
    let all = mask_text(&long, &style(72)).unwrap();
    assert!(all.contains("left out of rows and columns"), "{all}");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for (width, steps) in [(40, vec![70]), (80, vec![30, 1, 1, 1]), (80, vec![50; 4]), (60, vec![1; 40])] {
        for first in [0, 15, 1000] {
            let window = Window { first, most: None };
            let text =
                mask_text(&mask(vec![sequence(2, &steps)]), &TextStyle { window, ..style(width) }).unwrap();
            // the legend and the facts of a sequence are of fixed size
            let cells =
                text.lines().filter(|line| !line.contains(char::is_alphabetic) || line.contains("  "));
            for line in cells.filter(|line| !line.starts_with("rows")) {
                let columns = unicode_width::UnicodeWidthStr::width(line);
                assert!(columns <= width, "{columns} columns of {width}: {line}");
            }
        }
    }
}

#[test]
fn colours_add_escape_sequences_and_nothing_else() {
    let batch = mask(vec![sequence(1, &[4, 1])]);
    let plain = mask_text(&batch, &style(80)).unwrap();
    let colored = mask_text(&batch, &TextStyle { colored: true, ..style(80) }).unwrap();
    assert!(!plain.contains('\u{1b}') && colored.contains("\u{1b}[34mx\u{1b}[0m"));
    let mut stripped = String::new();
    for part in colored.split('\u{1b}') {
        let text =
            part.strip_prefix('[').and_then(|part| part.split_once('m')).map_or(part, |(_, text)| text);
        stripped.push_str(text);
    }
    assert_eq!(stripped, plain);
}

#[test]
fn padding_that_is_attended_to_is_shown_as_a_mistake() {
    let mut wrong = sequence(1, &[3]);
    wrong.visible[2][0] = true;
    let text = mask_text(&mask(vec![wrong]), &style(80)).unwrap();
    assert!(text.contains("! attends to padding: a mistake"), "{text}");
}

#[test]
fn texts_of_tokens_command_no_terminal() {
    let mut hostile = sequence(0, &[2]);
    hostile.tokens[1].text = Some("\u{1b}]0;title\u{7}\u{202e}".to_owned());
    let text = mask_text(&mask(vec![hostile]), &style(80)).unwrap();
    assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']) && text.contains("\\u{1b}]0;title"), "{text}");
}

/// Area of every colour in cells of 20 × 20 pixels; legends have smaller rectangles.
fn cells(svg: &str) -> BTreeMap<String, usize> {
    let document = Document::parse(svg).unwrap();
    let mut cells = BTreeMap::new();
    for rectangle in document.descendants().filter(|node| node.has_tag_name("rect")) {
        let number = |name| rectangle.attribute(name).unwrap().parse::<usize>().unwrap();
        if number("height") == 20 {
            *cells.entry(rectangle.attribute("fill").unwrap().to_owned()).or_insert(0) +=
                number("width") / 20;
        }
    }
    cells
}

#[test]
fn a_picture_has_a_cell_for_every_pair_of_tokens() {
    let svg = mask_svg(&mask(vec![sequence(2, &[3, 1])]), Window::default()).unwrap();
    let cells = cells(&svg);
    // 4 tokens: a square of 6 × 6 with the padding; below the diagonal 3 of one step and 3 of the cache
    let expected = [("#EEF1F5", 6), ("#C4C9D1", 20), ("#5F9DD9", 3), ("#E69F00", 4), ("#103E74", 3)];
    let expected: BTreeMap<_, _> = expected.map(|(color, count)| (color.to_owned(), count)).into();
    assert_eq!(cells, expected);
}

#[test]
fn a_picture_has_the_tokens_at_both_axes_as_text() {
    let mut tokens = sequence(0, &[3]);
    tokens.tokens[0].text = Some("</text><script>".to_owned());
    tokens.tokens[1].text = Some("\u{0}\u{ffff}".to_owned());
    let svg = mask_svg(&mask(vec![tokens]), Window::default()).unwrap();
    let document = Document::parse(&svg).unwrap();
    let texts: Vec<_> = document.descendants().filter(|node| node.has_tag_name("text")).collect();
    let holds = |text: &str| texts.iter().filter(|node| node.text().unwrap_or("").contains(text)).count();
    assert_eq!(holds("</text><script>"), 2);
    assert_eq!(holds("\\u{0}\\u{ffff}"), 2);
    assert!(document.descendants().all(|node| !node.has_tag_name("script")));
}

#[test]
fn a_long_mask_is_cut_with_a_note() {
    let svg = mask_svg(&mask(vec![sequence(0, &[300])]), Window { first: 290, most: None }).unwrap();
    assert!(svg.contains("tokens 45 to 300 of 300; 44 are left out of rows and columns"));
}

#[test]
fn a_png_is_twice_as_large_as_the_svg() {
    let small = mask(vec![sequence(0, &[3])]);
    let svg = mask_svg(&small, Window::default()).unwrap();
    let png = mask_png(&small, Window::default()).unwrap();
    let document = Document::parse(&svg).unwrap();
    let size = |name| document.root_element().attribute(name).unwrap().parse::<u32>().unwrap();
    // the size in the header of a PNG
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    assert_eq!((number(16), number(20)), (2 * size("width"), 2 * size("height")));
}

#[test]
fn a_mask_that_is_no_square_is_an_error() {
    let mut wrong = sequence(0, &[3]);
    wrong.visible[1].pop();
    let wrong = mask(vec![sequence(0, &[2]), wrong]);
    let error = mask_text(&wrong, &style(80)).unwrap_err();
    let expected = "rows and columns of the mask of sequence 1: expected 3, found 2";
    assert_eq!(error.to_string(), expected);
    assert_eq!(mask_svg(&wrong, Window::default()).unwrap_err().to_string(), expected);
    assert!(matches!(mask_text(&mask(vec![]), &style(80)), Err(Error::Empty { .. })));
}
