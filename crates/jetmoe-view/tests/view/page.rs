use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jetmoe_view::{PageText, comparison_page, routing_page};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::synthetic::{comparison, routing};

fn text(model: &str) -> PageText {
    PageText { model: model.to_owned(), names: vec!["first".to_owned(), "second".to_owned()] }
}

/// The text between two marks that occur once.
fn between<'p>(page: &'p str, from: &str, to: &str) -> &'p str {
    let (_, rest) = page.split_once(from).unwrap_or_else(|| panic!("no {from}"));
    rest.split_once(to).unwrap().0
}

fn data(page: &str) -> Value {
    serde_json::from_str(between(page, "<script type=\"application/json\" id=\"data\">", "</script>"))
        .unwrap()
}

#[test]
fn the_arrays_of_a_page_are_those_of_the_routing() {
    let routing = routing(20, 3, 0, "f32", 0.0);
    let data = data(&routing_page(&routing, &text("model")).unwrap());
    let bytes = |name: &str, mixture: usize| {
        STANDARD.decode(data["runs"][0]["routing"][mixture][name].as_str().unwrap()).unwrap()
    };
    let word = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]);
    for router in &routing.routers {
        let mixture = router.part as usize;
        let (experts, gates) = (bytes("experts", mixture), bytes("gates", mixture));
        let (margin, probabilities) = (bytes("margin", mixture), bytes("probabilities", mixture));
        for (token, choice) in router.tokens[0].iter().flatten().enumerate() {
            let place = router.layer * 20 + token;
            for slot in 0..2 {
                assert_eq!(usize::from(word(&experts, 2 * place + slot)), choice.experts[slot]);
                let gate = f32::from(word(&gates, 2 * place + slot)) / 65535.0;
                assert!((gate - choice.gates[slot]).abs() < 1e-4);
            }
            let stored = half::f16::from_bits(word(&margin, place)).to_f32();
            assert!((stored - choice.margin.unwrap()).abs() < 2e-3);
            let sum: u32 = probabilities[8 * place..8 * place + 8].iter().map(|&byte| u32::from(byte)).sum();
            assert!(sum.abs_diff(255) <= 4, "probabilities sum up to {sum} / 255");
        }
    }
    assert_eq!(data["layers"], 3);
    assert_eq!(data["mixtures"][1], serde_json::json!({"name": "MLP", "experts": 8, "perToken": 2}));
}

#[test]
fn texts_of_tokens_and_names_are_no_markup() {
    let mut hostile = routing(3, 1, 0, "f32", 0.0);
    hostile.sequences[0][0].text = Some("</script><img src=x onerror=alert(1)>\u{2028}<!--".to_owned());
    hostile.sequences[0][1].text = Some("{{script}}".to_owned());
    let page = routing_page(&hostile, &text("</title><b>")).unwrap();
    assert!(!page.contains("<img") && !page.contains('\u{2028}') && !page.contains("</title><b>"));
    assert_eq!(page.matches("</script>").count(), 2);
    let data = data(&page);
    assert_eq!(data["runs"][0]["tokens"][0], "</script><img src=x onerror=alert(1)>\\u{2028}<!--");
    assert_eq!(data["runs"][0]["tokens"][1], "{{script}}");
}

#[test]
fn the_policy_permits_the_script_and_the_style_of_the_page_only() {
    let page = routing_page(&routing(3, 1, 0, "f32", 0.0), &text("model")).unwrap();
    let policy = between(&page, "Content-Security-Policy\" content=\"", "\">");
    let digest = |text: &str| STANDARD.encode(Sha256::digest(text));
    let script = digest(between(&page, "</script>\n<script>", "</script>"));
    let style = digest(between(&page, "<style>", "</style>"));
    let expected = format!(
        "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    );
    assert_eq!(policy, expected);
    assert!(!page.contains("http://") && !page.contains("https://"), "the page names an address");
    assert!(!page.contains("{{"), "a placeholder is left");
}

#[test]
fn two_runs_are_compared_by_token_if_the_tokens_are_the_same() {
    let precisions = comparison(routing(9, 2, 0, "f32", 0.0), routing(9, 2, 0, "q4", 0.3));
    let compared = data(&comparison_page(&precisions, &text("model")).unwrap());
    assert_eq!(compared["sameTokens"], true);
    assert_eq!(compared["runs"][1]["facts"][0], serde_json::json!(["Precision", "q4"]));
    let texts = comparison(routing(9, 2, 0, "f32", 0.0), routing(5, 2, 30, "f32", 0.0));
    assert_eq!(data(&comparison_page(&texts, &text("model")).unwrap())["sameTokens"], false);
    let other = comparison(routing(9, 2, 0, "f32", 0.0), routing(9, 3, 0, "f32", 0.0));
    let error = comparison_page(&other, &text("model")).unwrap_err();
    assert_eq!(error.to_string(), "layers of the second routing: expected 2, found 3");
}

#[test]
fn a_thousand_tokens_of_24_layers_are_below_three_megabytes() {
    let precisions = comparison(routing(1000, 24, 0, "f32", 0.0), routing(1000, 24, 0, "q4", 0.1));
    let page = comparison_page(&precisions, &text("model")).unwrap();
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    assert!(data(&page)["runs"][0]["routing"][0]["probabilities"].is_string());
}

#[test]
fn probabilities_of_a_long_text_are_left_out_with_a_note() {
    let data = data(&routing_page(&routing(3000, 24, 0, "f32", 0.0), &text("model")).unwrap());
    assert!(data["runs"][0]["routing"][0]["probabilities"].is_null());
    assert!(data["notice"].as_str().unwrap().contains("probabilities of rejected experts are left out"));
}
