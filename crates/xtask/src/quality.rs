//! `quality`: what each precision costs in quality and saves in size, measured on jetmoe-mini's held-out text.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde_json::Value;

use crate::demo::build_commands;
use crate::setup;
use crate::step::{CommandLine, Steps};
use crate::workspace::{Workspace, data_bytes};

const MODEL: &str = "tests/fixtures/models/jetmoe-mini";
const CALIBRATION: &str = "tests/fixtures/models/jetmoe-mini/calibration.txt";
const TABLE: &str = "docs/quality.md";
const PLOT: &str = "docs/quality.svg";

/// One way to export.
struct Variant {
    name: &'static str,
    arguments: &'static [&'static str],
    /// Whether tract can run it.
    tract: bool,
}

/// The first is the baseline.
const VARIANTS: &[Variant] = &[
    Variant { name: "f32", arguments: &["--precision", "f32"], tract: true },
    Variant { name: "f16", arguments: &["--precision", "f16"], tract: true },
    Variant { name: "bf16", arguments: &["--precision", "bf16"], tract: false },
    Variant { name: "int8", arguments: &["--precision", "int8"], tract: true },
    Variant { name: "q4", arguments: &["--precision", "q4"], tract: true },
    Variant {
        name: "q4 calibrated",
        arguments: &["--precision", "q4", "--calibrate", CALIBRATION],
        tract: true,
    },
    Variant { name: "q4 zero points", arguments: &["--precision", "q4", "--zero-points"], tract: true },
    Variant {
        name: "q4 all 4-bit",
        arguments: &["--precision", "q4", "--zero-points", "--override", "int4/16:lm_head"],
        tract: true,
    },
    Variant {
        name: "q4 all 4-bit calibrated",
        arguments: &[
            "--precision",
            "q4",
            "--zero-points",
            "--override",
            "int4/16:lm_head",
            "--calibrate",
            CALIBRATION,
        ],
        tract: true,
    },
    Variant {
        name: "q4 nearest",
        arguments: &["--precision", "q4", "--rounding", "nearest", "--override", "int4:lm_head"],
        tract: true,
    },
    Variant { name: "q4f16", arguments: &["--precision", "q4f16"], tract: true },
];

/// What was measured of a variant.
#[derive(Debug)]
struct Measured {
    name: &'static str,
    arguments: String,
    bytes: u64,
    perplexity: f64,
    change: f64,
    kl_divergence: f64,
    top1_agreement: f64,
    router_agreement: f64,
    /// The change that tract finds.
    tract: Option<f64>,
}

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    setup::onnxruntime_library(workspace, steps)?;
    build_commands(workspace, steps)?;
    let folder = workspace.target.join("quality");
    let mut rows = Vec::new();
    for variant in VARIANTS {
        let artifact = folder.join(variant.name.replace(' ', "-"));
        let export = CommandLine::new(workspace.binary("jetmoe-export"))
            .arg(MODEL)
            .arg("--output")
            .arg(&artifact)
            .args(["--outputs", "router-logits", "--force"])
            .args(variant.arguments);
        steps.run(&format!("export {}", variant.name), &workspace.root, &export)?;
        let baseline = folder.join(VARIANTS[0].name);
        steps.perform(&format!("measure {}", variant.name), "jetmoe eval", || {
            rows.push(measure(workspace, variant, &artifact, &baseline)?);
            Ok(())
        })?;
    }
    fs::write(workspace.root.join(TABLE), page(&rows)).with_context(|| format!("cannot write {TABLE}"))?;
    draw(&workspace.root.join(PLOT), &rows)?;
    println!("\n{}\n{TABLE} and {PLOT} are written.", table(&rows));
    Ok(())
}

fn measure(workspace: &Workspace, variant: &Variant, artifact: &Path, baseline: &Path) -> Result<Measured> {
    let backends = if variant.tract { "ort,tract" } else { "ort" };
    let command = CommandLine::new(workspace.binary("jetmoe"))
        .arg("eval")
        .arg("--model")
        .arg(artifact)
        .arg("--baseline")
        .arg(baseline)
        .args(["--text", &format!("{MODEL}/eval.jsonl"), "--backend", backends, "--format", "json"]);
    let output = command.output(&workspace.root)?;
    if !output.status.success() {
        bail!("{command}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let report: Value = serde_json::from_slice(&output.stdout).context("jetmoe eval printed no JSON")?;
    let number = |path: &str| {
        report.pointer(path).and_then(Value::as_f64).ok_or_else(|| anyhow!("jetmoe eval printed no {path}"))
    };
    let change = |result: usize| -> Result<f64> {
        let baseline = number(&format!("/results/{result}/difference/baseline_perplexity"))?;
        Ok(number(&format!("/results/{result}/perplexity"))? / baseline - 1.0)
    };
    let routers = report.pointer("/results/0/difference/routers").and_then(Value::as_array);
    let agreements: Vec<f64> = routers
        .into_iter()
        .flatten()
        .flat_map(|router| [router["attention"].as_f64(), router["mlp"].as_f64()])
        .flatten()
        .collect();
    Ok(Measured {
        name: variant.name,
        arguments: variant.arguments.join(" ").replace(CALIBRATION, "calibration.txt"),
        bytes: data_bytes(&workspace.root.join(artifact).join("onnx"), "")?,
        perplexity: number("/results/0/perplexity")?,
        change: change(0)?,
        kl_divergence: number("/results/0/difference/kl_divergence")?,
        top1_agreement: number("/results/0/difference/top1_agreement")?,
        router_agreement: agreements.iter().sum::<f64>() / agreements.len().max(1) as f64,
        tract: if variant.tract { Some(change(1)?) } else { None },
    })
}

fn page(rows: &[Measured]) -> String {
    let mut page = format!(
        "# What each precision costs\n\n\
         Made by `cargo xtask quality`: jetmoe-mini exported in every way, on its held-out text (40875 tokens), against \
         the float32 export. Sizes are those of the weights; perplexity, KL divergence and agreement are ONNX Runtime's, \
         and the last column is the change of perplexity that tract finds.\n\n\
         ![Size against perplexity](quality.svg)\n\n{}\n",
        table(rows)
    );
    page.push_str(
        "How to read it\n\n\
         * Perplexity also moves by chance: jetmoe-mini is small and certain of itself, and any change of its weights \
         shifts the perplexity by about 0.1 % up or down. The KL divergence from the float32 model's predictions has no \
         such luck in it; where the two disagree, trust the divergence.\n\
         * A mixture of experts jumps: where rounding sends a token to other experts, its output changes as a whole. The \
         agreement of the routers says how often that happens.\n\
         * With 4-bit weights the head, which is also the embedding, takes 8 bits. *all 4-bit* stores it in 4 bits too, in \
         groups of 16 and with zero points; *nearest* stores everything in 4 bits and neither searches for scales nor \
         calibrates.\n\n\
         | precision | arguments of jetmoe-export |\n| --- | --- |\n",
    );
    for row in rows {
        let _ = writeln!(page, "| {} | `{}` |", row.name, row.arguments);
    }
    page
}

fn table(rows: &[Measured]) -> String {
    let mut text = String::from(
        "| precision | size | perplexity | change | KL divergence | same best token | same experts | tract |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let _ = writeln!(
            text,
            "| {} | {:.1} MB | {:.4} | {:+.2} % | {:.5} | {:.2} % | {:.2} % | {} |",
            row.name,
            row.bytes as f64 / 1e6,
            row.perplexity,
            row.change * 100.0,
            row.kl_divergence,
            row.top1_agreement * 100.0,
            row.router_agreement * 100.0,
            row.tract.map_or("–".to_owned(), |change| format!("{:+.2} %", change * 100.0)),
        );
    }
    text
}

/// Size against perplexity, one point a variant.
fn draw(path: &Path, rows: &[Measured]) -> Result<()> {
    const WIDTH: u32 = 900;
    const HEIGHT: u32 = 540;
    const BLUE_LINE: RGBColor = RGBColor(31, 98, 160);

    let largest = rows.iter().map(|row| row.bytes).max().unwrap_or(0) as f64 / 1e6 * 1.2;
    let lows = rows.iter().map(|row| row.perplexity).fold(f64::INFINITY, f64::min);
    let highs = rows.iter().map(|row| row.perplexity).fold(0.0, f64::max);
    let margin = (highs - lows).max(0.01) * 0.12;
    let mut drawing = String::new();
    {
        let area = SVGBackend::with_string(&mut drawing, (WIDTH, HEIGHT)).into_drawing_area();
        let failed = |error: &dyn std::fmt::Display| anyhow!("the plot cannot be drawn: {error}");
        area.fill(&WHITE).map_err(|error| failed(&error))?;
        let mut chart = ChartBuilder::on(&area)
            .caption("jetmoe-mini: size against perplexity on held-out text", ("sans-serif", 20))
            .margin(18)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..largest, (lows - margin)..(highs + margin))
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .x_desc("weights, MB")
            .y_desc("perplexity")
            .label_style(("sans-serif", 14))
            .draw()
            .map_err(|error| failed(&error))?;
        for (row, left) in rows.iter().zip(left_of_its_point(rows)) {
            let at = (row.bytes as f64 / 1e6, row.perplexity);
            let (side, offset) = if left { (HPos::Right, -9) } else { (HPos::Left, 9) };
            let style = ("sans-serif", 13).into_text_style(&area).pos(Pos::new(side, VPos::Center));
            let label = Text::new(row.name, (offset, 0), style);
            let point = EmptyElement::at(at) + Circle::new((0, 0), 5, BLUE_LINE.filled()) + label;
            chart.draw_series([point]).map_err(|error| failed(&error))?;
        }
        area.present().map_err(|error| failed(&error))?;
    }
    fs::write(path, drawing).with_context(|| format!("cannot write {}", path.display()))
}

/// Whether a point's name stands left of it: where another one of nearly the same place has its name on the right.
fn left_of_its_point(rows: &[Measured]) -> Vec<bool> {
    let near = |a: &Measured, b: &Measured| {
        (a.bytes as f64 / b.bytes as f64 - 1.0).abs() < 0.5 && (a.perplexity - b.perplexity).abs() < 0.04
    };
    let mut left: Vec<bool> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let right_taken = (0..index).any(|other| near(&rows[other], row) && !left[other]);
        left.push(right_taken);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(name: &'static str, bytes: u64, perplexity: f64) -> Measured {
        Measured {
            name,
            arguments: format!("--precision {name}"),
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
        let page = page(&rows);
        for line in ["| f32 | 18.0 MB | 19.0000 | +0.00 % |", "| q4 | `--precision q4` |"] {
            assert!(page.contains(line), "{page}");
        }
        let folder = std::env::temp_dir().join(format!("jetmoe-quality-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("plot.svg");
        draw(&path, &rows).unwrap();
        let drawing = fs::read_to_string(&path).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(drawing.matches("<circle").count(), rows.len());
        assert!(drawing.contains("perplexity") && drawing.contains(">\nq4\n</text>"), "{drawing}");
    }

    #[test]
    fn names_of_neighbours_do_not_lie_on_each_other() {
        let rows = [measured("a", 100, 19.0), measured("b", 104, 19.01), measured("c", 900, 19.0)];
        assert_eq!(left_of_its_point(&rows), [false, true, false]);
    }

    #[test]
    fn the_baseline_comes_first() {
        assert_eq!(VARIANTS[0].name, "f32");
    }
}
