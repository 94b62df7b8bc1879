use clap::Parser;

use super::*;
use crate::goal::Goal;

/// Two rounds of two targets.
fn raw() -> Value {
    let run = |batch: usize, prompt: usize, milliseconds: f64| {
        json!({
            "batch": batch, "prompt_tokens": prompt,
            "prefill": { "milliseconds": { "median": milliseconds * 10.0 } },
            "decode": {
                "milliseconds_per_step": { "median": milliseconds },
                "runtime_overhead": 0.01, "share_of_read_bandwidth": 0.4,
            },
        })
    };
    let machine = json!({
        "processor": "a processor", "memory_bytes": 8e9, "read_bytes_per_second": 1e10,
        "operations_per_second": 1e11,
    });
    let round = |scale: f64| {
        let q4 = [run(1, 128, scale), run(1, 512, scale), run(8, 128, 4.0 * scale)];
        let q4 = [&q4[..], &[run(1, 64, scale), run(1, 2048, 2.0 * scale)]].concat();
        let bf16 = [run(1, 128, 3.0 * scale), run(1, 512, 3.0 * scale), run(8, 128, 9.0 * scale)];
        json!({
            "jetmoe-q4": {
                "runtime": "ort 1.32.0", "load_seconds": 1.0, "data_bytes": 500_000_000_u64, "runs": q4,
                "machine": machine,
            },
            "transformers-bf16": { "runtime": "transformers 5", "load_seconds": 4.0, "runs": bf16 },
        })
    };
    json!({
        "command": "cargo xtask bench", "checkpoint_bytes": 2_000_000_000_u64,
        "rounds": [round(1.0), round(2.0)],
    })
}

#[test]
fn a_number_is_the_median_of_its_rounds() {
    let raw = raw();
    let rounds = Rounds { raw: &raw };
    assert_eq!(rounds.decode(BenchTarget::JetmoeQ4, (1, 128)), Some(1.5));
    assert_eq!(rounds.prefill(BenchTarget::TransformersBf16, (8, 128)), Some(135.0));
    assert_eq!(rounds.load_seconds(BenchTarget::JetmoeQ4), Some(1.0));
}

#[test]
fn a_target_that_was_not_measured_has_no_number() {
    let raw = raw();
    assert_eq!(Rounds { raw: &raw }.decode(BenchTarget::Openvino, (1, 128)), None);
    assert_eq!(Rounds { raw: &raw }.runtime(BenchTarget::Openvino), None);
}

#[test]
fn goals_compare_times_and_say_which_are_missed() {
    let raw = raw();
    let goals = goals::goals(&Rounds { raw: &raw });
    let measured: Vec<Option<f64>> = goals.iter().map(|goal| goal.measured).collect();
    let expected = [
        Some(3.0),
        None,
        None,
        None,
        Some(3.0),
        None,
        None,
        Some(2.0),
        Some(2.0),
        Some(0.01),
        Some(1.0),
        None,
        Some(8090.0 / 2030.0),
        Some(0.4),
        None,
    ];
    assert_eq!(measured, expected);
    let reached: Vec<Option<bool>> = goals.iter().map(Goal::is_reached).collect();
    assert_eq!(
        reached,
        [
            Some(false),
            None,
            None,
            None,
            Some(true),
            None,
            None,
            None,
            Some(true),
            Some(true),
            Some(false),
            None,
            None,
            Some(false),
            None
        ]
    );
}

#[test]
fn the_page_has_a_row_per_target_and_says_which_goals_were_missed() {
    let raw = raw();
    let page = page::page(&Rounds { raw: &raw }).unwrap();
    for line in [
        "| jetmoe-q4: ort 1.32.0 | 1.0 s | 15.0 ms | 1.5 ms |",
        "| decode, q4: times as fast as transformers in bfloat16 | 3.00 | ≥ 4.00 | **missed** |",
        "| decode, q4: share of the machine's read bandwidth | 40.0 % | ≥ 50.0 % | **missed** |",
    ] {
        assert!(page.contains(line), "{page}");
    }
    assert!(!page.contains("| openvino"), "{page}");
}

#[test]
fn every_measured_target_has_a_bar_with_name_and_number() {
    let raw = raw();
    let drawing = plot::draw(&Rounds { raw: &raw }).unwrap();
    for text in ["jetmoe-q4", "transformers-bf16", "666.7", "222.2"] {
        assert!(drawing.contains(&format!(">\n{text}\n</text>")), "{drawing}");
    }
    assert!(!drawing.contains("openvino"));
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    arguments: Arguments,
}

#[test]
fn peers_is_the_old_name_of_targets() {
    let cli = Cli::try_parse_from(["bench", "--peers", "openvino,jetmoe-q4"]).unwrap();
    assert_eq!(cli.arguments.targets, [BenchTarget::Openvino, BenchTarget::JetmoeQ4]);
}

#[test]
fn the_python_program_knows_the_baselines() {
    let program = include_str!("../../baselines/models.py");
    for target in BenchTarget::value_variants().iter().filter(|target| target.jetmoe().is_none()) {
        assert!(program.contains(&format!("\"{}\"", target.name())), "{}", target.name());
    }
}
