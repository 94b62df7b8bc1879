use super::*;
use crate::pages::Stored;
use crate::rounds::Rounds;

/// Two rounds of jetmoe and three baselines, one token and sixteen.
fn raw() -> Value {
    let run = |tokens: usize, milliseconds: f64, runtime: &str| {
        json!({
            "tokens": tokens, "milliseconds": milliseconds, "operations": 140_000_000 * tokens,
            "weight_bytes": 40_000_000, "share_of_read": 0.9, "runtime": runtime,
        })
    };
    let round = |scale: f64| {
        json!({
            "jetmoe": {
                "instructions": "avx2", "read_bytes_per_second": 30e9 * scale,
                "float32_operations_per_second": 130e9, "int8_operations_per_second": 390e9 * scale,
                "runs": [run(1, 1.5 * scale, ""), run(16, 9.0 * scale, "")],
            },
            "onnxruntime": { "runs": [run(1, 2.0 * scale, "onnxruntime 1"), run(16, 20.0 * scale, "")] },
            "openvino": { "runs": [run(1, 3.0 * scale, "openvino 1"), run(16, 18.0 * scale, "")] },
            // faster than both, but no client that a user would run instead
            "candle": { "runs": [run(1, 1.8 * scale, "candle"), run(16, 10.8 * scale, "")] },
        })
    };
    json!({
        "command": "cargo xtask bench --kernels", "processor": "a processor", "instruction_sets": ["avx2"],
        "rounds": [round(1.0), round(2.0)],
    })
}

#[test]
fn jetmoe_is_compared_with_the_fastest_client_at_each_number_of_tokens() {
    let raw = raw();
    let rounds = Rounds { raw: &raw };
    assert_eq!(rounds.fastest_client(1), Some((BenchTarget::OnnxRuntime, 3.0)));
    assert_eq!(rounds.fastest_client(16), Some((BenchTarget::Openvino, 27.0)));
    assert_eq!(rounds.ratio(1), Some(0.75));
    assert_eq!(rounds.ratio(512), None);
    assert_eq!(rounds.candle_ratio(16).map(|multiple| (multiple * 1e6).round()), Some(1.2e6));
}

#[test]
fn a_limit_is_the_best_of_the_rounds() {
    let raw = raw();
    assert_eq!(Rounds { raw: &raw }.limit("read_bytes_per_second"), Some(60e9));
}

#[test]
fn a_point_has_operations_per_byte_and_second() {
    let raw = raw();
    let point = Rounds { raw: &raw }.point(BenchTarget::Jetmoe, 16).unwrap();
    assert_eq!(point.operations_per_byte, 56.0);
    assert!((point.operations_per_second - 2.24e9 / 13.5e-3).abs() < 1.0);
}

#[test]
fn the_page_has_a_row_per_target_and_says_which_goals_were_missed() {
    let raw = raw();
    let page = page::page(&Rounds { raw: &raw }).unwrap();
    for line in [
        "| jetmoe-kernels, 4-bit, `avx2` | 2.25 | 13.50 | – | – |",
        "| onnxruntime 1 | 3.00 | 30.00 | – | – |",
        "| 1: time as a multiple of the fastest client's (onnxruntime) | 0.75 | ≤ 0.64 | **missed** |",
        "| 16: time as a multiple of the fastest client's (openvino) | 0.50 | ≤ 0.35 | **missed** |",
        "| 128: time as a multiple of the fastest client's (none) | – | ≤ 0.45 | not measured |",
        "| 1: share of the read bandwidth | 0.90 | ≥ 0.85 | reached |",
        "| 16: time of Candle's Q4K as a multiple of jetmoe's | 1.20 | ≥ 1.00 | reached |",
    ] {
        assert!(page.contains(line), "{page}");
    }
    let machine = "Processor: a processor with avx2; reads 60.0 GB/s and does 130 GFLOP/s in float32, 780 GOP/s in int8 with avx2";
    assert!(page.contains(machine), "{page}");
    assert!(!page.contains("transformers"), "{page}");
}

#[test]
fn the_page_says_how_a_target_with_several_ways_to_compute_did_it() {
    let mut raw = raw();
    raw["rounds"][1]["openvino"]["runs"][0]["variant"] = json!("tiled, f32");
    raw["rounds"][1]["openvino"]["runs"][1]["variant"] = json!("experts, f16");
    let page = page::page(&Rounds { raw: &raw }).unwrap();
    let line = "The fastest graph and precision of openvino: 1 token `tiled, f32`, 16 tokens `experts, f16`.";
    assert!(page.contains(line), "{page}");
}

#[test]
fn goals_depend_on_the_instruction_set() {
    for (isa, goal) in
        [("avx512vnni", "≤ 0.55"), ("avxvnni", "≤ 0.55"), ("amx", "≤ 0.60"), ("neon", "≤ 0.64")]
    {
        let mut raw = raw();
        raw["rounds"][0]["jetmoe"]["instructions"] = json!(isa);
        let page = page::page(&Rounds { raw: &raw }).unwrap();
        assert!(page.contains(&format!("(onnxruntime) | 0.75 | {goal} |")), "{page}");
    }
}

#[test]
fn the_index_has_a_row_per_processor_with_the_fastest_client() {
    let index = page::index(&[Stored { folder: "somewhere".to_owned(), raw: raw() }]).unwrap();
    let row = "| [a processor with avx2](somewhere/README.md) | `avx2` | 2.25; onnxruntime 3.00 | 13.50; openvino 27.00 | – | – |";
    assert!(index.contains(row), "{index}");
}

#[test]
fn jetmoe_itself_is_needed() {
    let targets = Some(vec![BenchTarget::Openvino]);
    let error = run(&Arguments { rounds: 1, threads: 1, targets, output: None }).unwrap_err();
    assert_eq!(error.to_string(), "the target jetmoe is needed as well, because it measures the machine");
}

#[test]
fn targets_are_chosen_by_name() {
    assert_eq!("jetmoe-avx2".parse::<BenchTarget>().unwrap(), BenchTarget::Isa("avx2"));
    let error = "jetmoe-mmx".parse::<BenchTarget>().unwrap_err().to_string();
    assert!(error.contains("jetmoe, jetmoe-amx") && error.contains("onnxruntime-qmoe"), "{error}");
}

#[test]
fn every_measured_target_has_points_and_a_name_and_all_limits_are_drawn() {
    let raw = raw();
    let drawing = plot::draw(&Rounds { raw: &raw }).unwrap();
    for text in [
        "jetmoe",
        "onnxruntime",
        "openvino",
        "reads 60.0 GB/s",
        "float32, 130 GFLOP/s",
        "int8 avx2, 780 GOP/s",
    ] {
        assert!(drawing.contains(&format!(">\n{text}\n</text>")), "{drawing}");
    }
    // a point for each of two numbers of tokens, and one next to the name
    assert_eq!(drawing.matches("<circle").count(), 4 * 3);
    assert!(!drawing.contains("transformers"));
}

#[test]
fn the_python_program_knows_the_clients() {
    let program = include_str!("../../baselines/layers.py");
    for client in BenchTarget::ALL.iter().filter(|target| target.is_client()) {
        assert!(program.contains(&format!("\"{}\"", client.name())), "{}", client.name());
    }
}

#[test]
fn an_instruction_set_is_measured_only_if_it_gives_another_row() {
    let jetmoe = json!({ "instructions": "avx2", "available": [GENERIC, "avx2"] });
    assert!(is_other_available(&jetmoe, GENERIC));
    assert!(!is_other_available(&jetmoe, "avx2"));
    assert!(!is_other_available(&jetmoe, "amx"));
}

#[test]
fn an_instruction_set_is_chosen_by_the_environment() {
    let shown = format!("{:?}", benchmark(BenchTarget::Isa(GENERIC), "2"));
    let kept = r#"MALLOC_MMAP_THRESHOLD_="33554432" MALLOC_TRIM_THRESHOLD_="67108864""#;
    let start = format!("{ISA_VARIABLE}=\"{GENERIC}\" {kept} \"cargo\" \"bench\"");
    assert!(shown.starts_with(&start), "{shown}");
    let end = r#""--rounds" "3" "--threads" "2" "--layers" "4" "--tokens" "1,16""#;
    assert!(shown.ends_with(end), "{shown}");
}
