//! Writes pages and pictures of synthetic routings and masks into a folder: `cargo run -p jetmoe-view --example synthetic -- FOLDER`.
//! The tests in a browser open them, and they are what a change of the drawings is looked at with.

use std::path::Path;

use jetmoe_view::{
    PageText, Window, comparison_page, load_png, load_svg, margin_png, margin_svg, mask_png, mask_svg,
    routing_page,
};

#[allow(clippy::unwrap_used, reason = "the module of the tests")]
#[path = "../tests/view/synthetic.rs"]
mod synthetic;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("which folder?")?;
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes);
    let text = |names: [&str; 2]| PageText {
        model: "synthetic </script><b>model".to_owned(),
        names: names.map(str::to_owned).to_vec(),
    };

    let exact = synthetic::routing(1000, 24, 0, "f32", 0.0);
    let rounded = synthetic::routing(1000, 24, 0, "q4", 0.1);
    let short = synthetic::routing(40, 24, 20, "f32", 0.0);
    let other = synthetic::routing(60, 24, 70, "f32", 0.0);
    write("routing.html", routing_page(&exact, &text(["f32", ""]))?.as_bytes())?;
    write("load.svg", load_svg(&exact)?.as_bytes())?;
    write("load.png", &load_png(&exact)?)?;
    write("margin.svg", margin_svg(&short, Window::default())?.as_bytes())?;
    write("margin.png", &margin_png(&short, Window::default())?)?;
    let precisions = synthetic::comparison(exact, rounded);
    write("precisions.html", comparison_page(&precisions, &text(["f32", "q4"]))?.as_bytes())?;
    let texts = synthetic::comparison(short, other);
    write("texts.html", comparison_page(&texts, &text(["first text", "second text"]))?.as_bytes())?;

    let batch = synthetic::mask(vec![
        synthetic::sequence(3, &[8, 1, 1, 1]),
        synthetic::sequence(0, &[6, 5, 1, 1, 1]),
    ]);
    write("mask.svg", mask_svg(&batch, Window::default())?.as_bytes())?;
    write("mask.png", &mask_png(&batch, Window::default())?)?;
    let long = synthetic::mask(vec![synthetic::sequence(0, &[128, 128, 90])]);
    write("long-mask.png", &mask_png(&long, Window::default())?)?;
    Ok(())
}
