use jetmoe_view::{Error, Window, load_svg, margin_svg};
use resvg::usvg::roxmltree::Document;

use crate::synthetic::{EXPERTS, routing};

/// Texts of a picture.
fn texts(svg: &str) -> Vec<String> {
    let document = Document::parse(svg).unwrap();
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    texts.map(|node| node.text().unwrap_or("").trim().to_owned()).collect()
}

/// Rectangles of a size.
fn rectangles(svg: &str, width: &str, height: &str) -> usize {
    let document = Document::parse(svg).unwrap();
    let has = |node: &resvg::usvg::roxmltree::Node<'_, '_>| {
        node.attribute("width") == Some(width) && node.attribute("height") == Some(height)
    };
    document.descendants().filter(|node| node.has_tag_name("rect")).filter(has).count()
}

#[test]
fn the_loads_have_a_cell_for_every_expert_of_every_router() {
    let routing = routing(30, 6, 0, "f32", 0.0);
    let svg = load_svg(&routing).unwrap();
    assert_eq!(rectangles(&svg, "39", "19"), 2 * 6 * EXPERTS);
    let texts = texts(&svg);
    for router in &routing.routers {
        for load in &router.load {
            let percent = (100.0 * load.tokens as f64 / 30.0).round().to_string();
            assert!(texts.contains(&percent), "{percent} is not in the picture");
        }
    }
    assert!(texts.contains(&"25.0 % if all experts of a layer have the same load".to_owned()));
}

#[test]
fn the_margins_have_a_cell_for_every_token_of_every_router() {
    let svg = margin_svg(&routing(30, 6, 0, "f32", 0.0), Window::default()).unwrap();
    assert_eq!(rectangles(&svg, "17", "13"), 2 * 6 * 30);
    let cut = margin_svg(&routing(300, 2, 0, "f32", 0.0), Window { first: 10, most: Some(20) }).unwrap();
    assert_eq!(rectangles(&cut, "17", "13"), 2 * 2 * 20);
    assert!(texts(&cut).iter().any(|text| text.starts_with("Tokens 11 to 30 of 300.")));
}

#[test]
fn a_routing_that_disagrees_with_itself_is_an_error() {
    let message = |change: fn(&mut jetmoe_observe::Routing)| {
        let mut routing = routing(4, 2, 0, "f32", 0.0);
        change(&mut routing);
        load_svg(&routing).unwrap_err().to_string()
    };
    let lost = message(|routing| routing.routers[3].tokens[0][1] = None);
    assert_eq!(lost, "tokens of the MLP router of layer 1: expected 4, found 3");
    let missing = message(|routing| drop(routing.routers.pop()));
    assert_eq!(missing, "MLP routers: expected 2, found 1");
    let unknown = message(|routing| routing.routers[0].tokens[0][0].as_mut().unwrap().experts[0] = 9);
    assert!(unknown.starts_with("the number of an expert in the Attention router of layer 0"), "{unknown}");
    let mut empty = routing(1, 1, 0, "f32", 0.0);
    empty.sequences.clear();
    assert!(matches!(load_svg(&empty), Err(Error::Empty { .. })));
}
