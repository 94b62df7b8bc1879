use clap::Parser;

use super::*;
use crate::goal::Goal;
use crate::pages::Stored;
use crate::rounds::Rounds;

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
        "memory_bytes": 8e9, "read_bytes_per_second": 1e10,
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
        "command": "cargo xtask bench", "layers": 2, "processor": "a processor", "instruction_sets": ["avx2"],
        "checkpoint_bytes": 2_000_000_000_u64,
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
    let mut raw = raw();
    for round in 0..2 {
        raw["rounds"][round]["llama-cpp"] = json!({ "runs": [
            { "batch": 1, "prompt_tokens": 128, "decode": { "milliseconds_per_step": { "median": 7.5 } } },
            { "batch": 1, "prompt_tokens": 512, "prefill": { "milliseconds": { "median": 60.0 } } },
        ] });
    }
    let goals = goals::goals(&Rounds { raw: &raw });
    let measured: Vec<Option<f64>> = goals.iter().map(|goal| goal.measured).collect();
    let expected = [
        Some(3.0),
        None,
        None,
        None,
        Some(3.0),
        Some(5.0),
        Some(4.0),
        None,
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
            None,
            None,
            Some(false),
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
fn goals_are_others_where_transformers_computes_in_bfloat16() {
    let mut raw = raw();
    raw["instruction_sets"] = json!(["avx512bf16", "avx512vnni"]);
    let page = page::page(&Rounds { raw: &raw }).unwrap();
    for row in [
        "| decode, q4: times as fast as transformers in bfloat16 | 3.00 | ≥ 3.50 | **missed** |",
        "| prefill of 512 tokens, q4: times as fast as transformers in bfloat16 | 3.00 | ≥ 4.50 | **missed** |",
    ] {
        assert!(page.contains(row), "{page}");
    }
}

#[test]
fn the_page_has_a_row_per_target_and_says_which_goals_were_missed() {
    let raw = raw();
    let page = page::page(&Rounds { raw: &raw }).unwrap();
    for line in [
        "| jetmoe-q4: ort 1.32.0 | 1.00 s | 15.0 ms | 1.5 ms |",
        "| decode, q4: times as fast as transformers in bfloat16 | 3.00 | ≥ 4.00 | **missed** |",
        "| decode, q4: share of the machine's read bandwidth | 40.0 % | ≥ 50.0 % | **missed** |",
    ] {
        assert!(page.contains(line), "{page}");
    }
    assert!(page.contains("2 layers. Processor: a processor with avx2; 7 GiB"), "{page}");
    assert!(!page.contains("| openvino") && !page.contains("Mixtral"), "{page}");
}

#[test]
fn the_page_explains_llama_cpp_and_genai_where_they_were_measured() {
    let mut raw = raw();
    raw["layers"] = json!(24);
    for (target, runtime) in
        [("llama-cpp", "llama.cpp v0.5.0"), ("onnxruntime-genai", "onnxruntime-genai 0.18.0")]
    {
        raw["rounds"][0][target] = json!({ "runtime": runtime, "load_seconds": 2.0, "runs": [] });
    }
    let page = page::page(&Rounds { raw: &raw }).unwrap();
    assert!(page.starts_with("# Benchmarks, full size\n"), "{page}");
    assert!(page.contains("| llama-cpp: llama.cpp v0.5.0 | 2.00 s | – |"), "{page}");
    assert!(page.contains("Mixtral") && page.contains("the graph of `jetmoe-q4-onnxruntime`"), "{page}");
}

#[test]
fn the_index_has_a_row_per_processor_with_the_fastest_other_program() {
    let mut other = raw();
    other["instruction_sets"] = json!([]);
    for round in 0..2 {
        other["rounds"][round]["llama-cpp"] = json!({ "runs": [{
            "batch": 1, "prompt_tokens": 128, "decode": { "milliseconds_per_step": { "median": 2.0 } },
        }] });
    }
    let all =
        [("a", raw()), ("b/full-size", other)].map(|(folder, raw)| Stored { folder: folder.to_owned(), raw });
    let index = index::index(&all).unwrap();
    for line in [
        "| [a processor with avx2](a/README.md) | 2 | 666.7 | 34133.3 | – | – | 222.2 | 11377.8 | transformers-bf16 222.2 |",
        "| [a processor](b/full-size/README.md) | 2 | 666.7 | 34133.3 | 500.0 | – | 222.2 | 11377.8 | llama-cpp 500.0 |",
    ] {
        assert!(index.contains(line), "{index}");
    }
}

#[test]
fn by_default_only_targets_are_measured_that_fit_in_memory() {
    let two_layers = BenchTarget::defaults(2, 24 << 30);
    assert_eq!(
        two_layers.len(),
        BenchTarget::value_variants().len() - usize::from(cfg!(not(target_os = "linux")))
    );
    let full_size = BenchTarget::defaults(24, 24 << 30);
    assert!(full_size.contains(&BenchTarget::TransformersBf16) && full_size.contains(&BenchTarget::JetmoeQ4));
    assert!(full_size.iter().all(|target| target.bytes_per_weight() < 4.0), "{full_size:?}");
    assert_eq!(BenchTarget::defaults(24, 1 << 30), []);
}

#[test]
fn results_of_another_size_have_a_folder_of_their_own() {
    let folders = [2, 24, 4].map(folder_of_size);
    let expected = [None, Some("full-size"), Some("4-layers")].map(|name| name.map(str::to_owned));
    assert_eq!(folders, expected);
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
    assert_eq!(cli.arguments.targets, Some(vec![BenchTarget::Openvino, BenchTarget::JetmoeQ4]));
}

#[test]
fn a_target_of_jetmoe_is_needed() {
    let cli = Cli::try_parse_from(["bench", "--targets", "openvino"]).unwrap();
    assert!(run(&cli.arguments).unwrap_err().to_string().contains("measures the machine"));
}

#[test]
fn the_python_program_knows_the_baselines() {
    let program = include_str!("../../baselines/models.py");
    for target in BenchTarget::value_variants().iter().filter(|target| target.jetmoe().is_none()) {
        assert!(program.contains(&format!("\"{}\"", target.name())), "{}", target.name());
    }
}
