//! `jetmoe-bench quality`: what each precision costs in quality and saves in size, on jetmoe-mini's held-out text.

mod plot;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use crate::command::{self, jetmoe};

const MODEL: &str = "tests/fixtures/models/jetmoe-mini";

/// Names and arguments of the exports. The first is the baseline.
const VARIANTS: &[(&str, &str)] = &[
    ("f32", "--precision f32"),
    ("f16", "--precision f16"),
    (WITHOUT_TRACT, "--precision bf16"),
    ("int8", "--precision int8"),
    ("q4", "--precision q4"),
    ("q4 calibrated", "--precision q4 --calibrate calibration.txt"),
    ("q4 zero points", "--precision q4 --zero-points"),
    ("q4 all 4-bit", "--precision q4 --zero-points --override int4/16:lm_head"),
    (
        "q4 all 4-bit calibrated",
        "--precision q4 --zero-points --override int4/16:lm_head --calibrate calibration.txt",
    ),
    ("q4 nearest", "--precision q4 --rounding nearest --override int4:lm_head"),
    ("q4f16", "--precision q4f16"),
];
/// Formats of the key/value cache of a native graph. The first is the baseline of the others.
const CACHES: &[(&str, &str)] = &[
    ("f32", "--precision q4 --profile native --kv-cache f32"),
    ("f16", "--precision q4 --profile native --kv-cache f16"),
    ("int8", "--precision q4 --profile native --kv-cache int8"),
];
/// Bytes of a key or value of 128 channels in these formats.
const CACHE_BYTES: [usize; 3] = [512, 256, 132];
/// tract runs all other variants.
const WITHOUT_TRACT: &str = "bf16";

/// The results of a variant.
#[derive(Debug)]
struct Measured {
    name: &'static str,
    arguments: &'static str,
    bytes: u64,
    perplexity: f64,
    change: f64,
    kl_divergence: f64,
    top1_agreement: f64,
    router_agreement: f64,
    /// Change of the perplexity in tract.
    tract: Option<f64>,
}

pub(crate) fn run() -> Result<()> {
    let folder = command::work_folder("quality")?;
    let rows = measure_all(VARIANTS, &folder)?;
    let caches = measure_all(CACHES, &folder.join("caches"))?;
    println!("\n{}\n{}", table(&rows), cache_table(&caches));
    command::write_files(
        Path::new("docs"),
        &[("quality.md", &page(&rows, &caches)), ("quality.svg", &plot::draw(&rows)?)],
    )
}

/// Exports every variant into a folder, and compares it with the first one.
fn measure_all(variants: &[(&'static str, &'static str)], folder: &Path) -> Result<Vec<Measured>> {
    let mut rows = Vec::new();
    for (name, arguments) in variants {
        let artifact = folder.join(name.replace(' ', "-"));
        let mut export = jetmoe("jetmoe-export")?;
        export.args([MODEL, "--outputs", "router-logits", "--force", "--output"]).arg(&artifact);
        let with_path = arguments.replace("calibration.txt", &format!("{MODEL}/calibration.txt"));
        command::run(&format!("export {name}"), export.args(with_path.split_whitespace()))?;
        rows.push(measure(name, arguments, &artifact, &folder.join(variants[0].0))?);
    }
    Ok(rows)
}

fn measure(
    name: &'static str,
    arguments: &'static str,
    artifact: &Path,
    baseline: &Path,
) -> Result<Measured> {
    let runs_in_tract = name != WITHOUT_TRACT;
    let backends = if runs_in_tract { "ort,tract" } else { "ort" };
    let mut eval = jetmoe("jetmoe")?;
    eval.args(["eval", "--model"]).arg(artifact).arg("--baseline").arg(baseline);
    eval.args(["--text", &format!("{MODEL}/eval.jsonl"), "--backend", backends, "--format", "json"]);
    let report = command::json(&format!("measure {name}"), &mut eval)?;
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
        name,
        arguments,
        bytes: data_bytes(&artifact.join("onnx"))?,
        perplexity: number("/results/0/perplexity")?,
        change: change(0)?,
        kl_divergence: number("/results/0/difference/kl_divergence")?,
        top1_agreement: number("/results/0/difference/top1_agreement")?,
        router_agreement: agreements.iter().sum::<f64>() / agreements.len().max(1) as f64,
        tract: if runs_in_tract { Some(change(1)?) } else { None },
    })
}

/// Size of the data file in a folder of graphs, or in that of a profile inside it.
fn data_bytes(folder: &Path) -> Result<u64> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            return data_bytes(&path);
        }
        if path.is_file() && path.extension().is_none_or(|extension| extension != "onnx") {
            return Ok(path.metadata()?.len());
        }
    }
    Err(anyhow!("{} holds no data file", folder.display()))
}

fn page(rows: &[Measured], caches: &[Measured]) -> String {
    let mut page = format!(
        "# What each precision costs\n\n\
         Made by `cargo xtask quality`: jetmoe-mini exported in every precision, on its held-out text (40875 tokens), compared \
         with the float32 export. Sizes are those of the weights; perplexity, KL divergence and agreement are measured in \
         ONNX Runtime, and the last column is the change of perplexity in tract.\n\n\
         ![Size against perplexity](quality.svg)\n\n{}\n\
         The key/value cache of native graphs (`--kv-cache`), in `q4`, compared with a float32 cache of the same weights; bytes \
         are those of a key or value of JetMoE-8B, of one head and token:\n\n{}\n",
        table(rows),
        cache_table(caches)
    );
    page.push_str(
        "How to read it\n\n\
         * Perplexity also changes by chance: jetmoe-mini is small and confident, and any change of its weights shifts \
         the perplexity by about 0.1 % up or down. The KL divergence from the float32 model's predictions does not have \
         this noise; where the two disagree, trust the divergence.\n\
         * In a mixture of experts a small error can route a token to other experts, which changes its output a lot. The \
         agreement of the routers says how often that happens.\n\
         * With 4-bit weights the head, which is also the embedding, takes 8 bits. *all 4-bit* stores it in 4 bits too, in \
         groups of 16 and with zero points; *nearest* stores everything in 4 bits, without a search for scales and \
         without calibration.\n\n\
         | precision | arguments of jetmoe-export |\n| --- | --- |\n",
    );
    for row in rows {
        let _ = writeln!(page, "| {} | `{}` |", row.name, row.arguments);
    }
    page
}

fn cache_table(rows: &[Measured]) -> String {
    let mut text = String::from(
        "| cache | bytes | perplexity | change | KL divergence | same best token | same experts | tract |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for (row, bytes) in rows.iter().zip(CACHE_BYTES) {
        let _ = writeln!(text, "| {} | {bytes} | {}", row.name, quality_cells(row));
    }
    text
}

fn table(rows: &[Measured]) -> String {
    let mut text = String::from(
        "| precision | size | perplexity | change | KL divergence | same best token | same experts | tract |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let _ = writeln!(text, "| {} | {:.1} MB | {}", row.name, row.bytes as f64 / 1e6, quality_cells(row));
    }
    text
}

/// The cells of a row that say what a variant costs, to the end of its line.
fn quality_cells(row: &Measured) -> String {
    format!(
        "{:.4} | {:+.2} % | {:.5} | {:.2} % | {:.2} % | {} |",
        row.perplexity,
        row.change * 100.0,
        row.kl_divergence,
        row.top1_agreement * 100.0,
        row.router_agreement * 100.0,
        row.tract.map_or("–".to_owned(), |change| format!("{:+.2} %", change * 100.0)),
    )
}

#[cfg(test)]
mod tests;
