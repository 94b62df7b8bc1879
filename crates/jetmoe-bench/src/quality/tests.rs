use super::*;

fn measured(name: &'static str, bytes: u64, perplexity: f64) -> Measured {
    Measured {
        name,
        arguments: "--precision x",
        bytes,
        perplexity,
        change: perplexity / 19.0 - 1.0,
        kl_divergence: 0.01,
        top1_agreement: 0.9,
        router_agreement: 0.95,
        tract: None,
    }
}

#[test]
fn every_variant_has_a_row_a_line_of_arguments_and_a_point() {
    let rows = [measured("f32", 18_000_000, 19.0), measured("q4", 3_000_000, 19.2)];
    let page = page(&rows, &[measured("f32", 0, 19.0), measured("f16", 0, 19.1)]);
    for line in [
        "| f32 | 18.0 MB | 19.0000 | +0.00 % |",
        "| q4 | `--precision x` |",
        "| f16 | 256 | 19.1000 | +0.53 % |",
    ] {
        assert!(page.contains(line), "{page}");
    }
    let drawing = plot::draw(&rows).unwrap();
    assert_eq!(drawing.matches("<circle").count(), rows.len());
    assert!(drawing.contains("perplexity") && drawing.contains(">\nq4\n</text>"), "{drawing}");
}

#[test]
fn the_baseline_comes_first() {
    assert_eq!(VARIANTS[0].0, "f32");
    assert_eq!(CACHES[0].0, "f32");
    assert_eq!(CACHES.len(), CACHE_BYTES.len());
}
