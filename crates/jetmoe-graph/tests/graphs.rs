//! The graphs themselves: the files under `graphs/`, and what holds for every graph.
//!
//! `cargo xtask regenerate` rewrites `graphs/`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jetmoe_artifact::{CacheFormat, OptionalOutput, Precision, Profile, Task, WeightPlan};
use jetmoe_checkpoint::ModelConfig;
use jetmoe_graph::{Graph, GraphOptions, Operator, Opset, build, dot, text};
use layout::backends::svg::SVGWriter;
use layout::gv::{DotParser, GraphBuilder};
use serde_json::json;

/// One layer and three experts: small enough to read, large enough to show every part.
fn tiny_config() -> ModelConfig {
    let value = json!({
        "model_type": "jetmoe", "vocab_size": 32, "hidden_size": 8, "num_hidden_layers": 1,
        "num_key_value_heads": 2, "kv_channels": 8, "intermediate_size": 12, "num_local_experts": 3,
        "num_experts_per_tok": 2, "max_position_embeddings": 16, "pad_token_id": 0,
    });
    ModelConfig::from_json(&value).unwrap()
}

/// Each task with and without the optional outputs, and next-token logits in every other precision; float32 and 4-bit
/// weights also with ONNX Runtime's operators, 4-bit weights and float16 for a GPU, 4-bit weights and bfloat16 with the custom
/// operators, and one of these with an 8-bit cache.
fn every_graph() -> Vec<(String, Graph)> {
    let mut graphs = Vec::new();
    for task in Task::ALL {
        for with_outputs in [false, true] {
            let mut options = GraphOptions::for_task(*task);
            let mut name = task.to_string();
            if with_outputs {
                options.optional_outputs = OptionalOutput::ALL.iter().copied().collect();
                name.push_str(".all-outputs");
            }
            graphs.push((name, build(&tiny_config(), &options).unwrap()));
        }
    }
    let others = Precision::ALL.iter().filter(|precision| **precision != Precision::F32);
    let portable = others.map(|precision| (*precision, Profile::Portable));
    let with_onnx_runtimes =
        [Precision::F32, Precision::Q4].map(|precision| (precision, Profile::OnnxRuntime));
    let for_gpus = [Precision::F16, Precision::Q4].map(|precision| (precision, Profile::Gpu));
    let with_own_operators = [Precision::Q4, Precision::Bf16].map(|precision| (precision, Profile::Native));
    let int8_cache = GraphOptions {
        precision: Precision::Q4,
        profile: Profile::Native,
        kv_cache: CacheFormat::Int8,
        ..GraphOptions::for_task(Task::CausalLm)
    };
    let name = format!("{}.{}.native.int8-cache", int8_cache.task, int8_cache.precision);
    graphs.push((name, build(&tiny_config(), &int8_cache).unwrap()));
    for (precision, profile) in portable.chain(with_onnx_runtimes).chain(for_gpus).chain(with_own_operators) {
        let options = GraphOptions { precision, profile, ..GraphOptions::for_task(Task::CausalLm) };
        let mut name = format!("{}.{precision}", options.task);
        if profile != Profile::Portable {
            name.push_str(&format!(".{profile}"));
        }
        graphs.push((name, build(&tiny_config(), &options).unwrap()));
    }
    graphs
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../graphs")
}

fn svg(graph: &Graph) -> String {
    let mut parser = DotParser::new(&dot(graph));
    let mut builder = GraphBuilder::new();
    builder.visit_graph(&parser.process().unwrap());
    let mut picture = builder.get();
    let mut writer = SVGWriter::new();
    picture.do_it(false, false, false, &mut writer);
    writer.finalize()
}

#[test]
fn the_files_under_graphs_show_what_the_exporter_builds() {
    let regenerate = std::env::var_os("JETMOE_REGENERATE").is_some();
    let mut expected: Vec<(PathBuf, String)> = Vec::new();
    for (name, graph) in every_graph() {
        expected.push((folder().join(format!("{name}.txt")), text::render(&graph)));
        if !name.contains('.') {
            expected.push((folder().join(format!("{name}.svg")), svg(&graph)));
        }
    }
    for (path, content) in &expected {
        if regenerate {
            std::fs::write(path, content).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        let place = found.lines().zip(content.lines()).position(|(found, built)| found != built);
        assert!(
            found == *content,
            "{} is out of date from line {} on; run `cargo xtask regenerate` and review the difference",
            path.display(),
            place.unwrap_or(found.lines().count().min(content.lines().count())) + 1
        );
    }
    let files: BTreeSet<PathBuf> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let known: BTreeSet<PathBuf> = expected.into_iter().map(|(path, _)| path).collect();
    let strangers: Vec<_> = files.difference(&known).filter(|path| !path.ends_with("README.md")).collect();
    assert!(strangers.is_empty(), "no graph makes these files: {strangers:?}");
}

/// <https://onnx.ai/onnx/operators/>, domain ai.onnx, all of them in every operator set from 18 on.
#[rustfmt::skip]
const STANDARD: &[&str] = &[
    "Add", "And", "Cast", "Concat", "ConstantOfShape", "Cos", "CumSum", "Div", "Equal", "Erf", "Gather",
    "Gemm", "LessOrEqual", "MatMul", "Max", "Mul", "Neg", "NonZero", "Not", "Pow", "Range", "ReduceMax", "ReduceMean",
    "ReduceSum", "Relu", "Reshape", "ScatterND", "Shape", "Sigmoid", "Sin", "Slice", "Softmax", "Split",
    "Sqrt", "Squeeze", "Sub", "Tanh", "TopK", "Transpose", "Unsqueeze", "Where",
];

/// What portable graphs of a precision may use: groups came to DequantizeLinear with opset 21.
fn is_portable(operator: &Operator, precision: Precision) -> bool {
    let is_known = STANDARD.contains(&operator.name)
        || (operator.name == "DequantizeLinear" && precision.format().is_quantized());
    operator.domain.is_empty() && is_known
}

#[test]
fn a_portable_graph_uses_only_standard_operators() {
    for activation in ["silu", "gelu", "gelu_new", "relu"] {
        let value =
            json!({ "model_type": "jetmoe", "activation_function": activation, "num_hidden_layers": 1 });
        let config = ModelConfig::from_json(&value).unwrap();
        for task in [Task::CausalLm, Task::Backbone, Task::SequenceClassification] {
            for precision in Precision::ALL {
                let options = GraphOptions { precision: *precision, ..GraphOptions::for_task(task) };
                let operators = build(&config, &options).unwrap().operators();
                let strangers: BTreeSet<_> =
                    operators.into_keys().filter(|operator| !is_portable(operator, *precision)).collect();
                assert!(strangers.is_empty(), "{task}, {activation}, {precision}: {strangers:?}");
            }
        }
    }
}

#[test]
fn a_graph_for_onnx_runtime_uses_its_operators_for_attention_and_quantized_weights() {
    for precision in Precision::ALL {
        let options = GraphOptions {
            precision: *precision,
            profile: Profile::OnnxRuntime,
            ..GraphOptions::for_task(Task::CausalLm)
        };
        let operators = build(&tiny_config(), &options).unwrap().operators();
        let foreign: BTreeSet<String> = operators
            .into_keys()
            .filter(|operator| !STANDARD.contains(&operator.name) || !operator.domain.is_empty())
            .map(|operator| operator.to_string())
            .collect();
        let mut wanted = vec!["GroupQueryAttention", "RotaryEmbedding"];
        if precision.format().is_quantized() {
            wanted.extend(["GatherBlockQuantized", "MatMulNBits"]);
        }
        let wanted: BTreeSet<String> = wanted.iter().map(|name| format!("com.microsoft.{name}")).collect();
        assert_eq!(foreign, wanted, "{precision}");
    }
}

/// Each layer has one product of each kind, whatever the number of experts.
#[test]
fn a_native_graph_uses_our_operators_for_attention_norms_routers_and_every_product() {
    for precision in [Precision::Bf16, Precision::Int8, Precision::Q4] {
        let options =
            GraphOptions { precision, profile: Profile::Native, ..GraphOptions::for_task(Task::CausalLm) };
        let operators = build(&tiny_config(), &options).unwrap().operators();
        let own: Vec<(&str, usize)> = operators
            .iter()
            .filter(|(operator, _)| operator.domain == "jetmoe")
            .map(|(operator, count)| (operator.name, *count))
            .collect();
        let wanted = [
            ("Attention", 1),
            ("ExpertLinear", 1),
            ("ExpertLinearSum", 1),
            ("ExpertMlp", 1),
            ("Linear", 2),
            ("LookUp", 1),
            ("RmsNorm", 3),
            ("Router", 2),
        ];
        assert_eq!(own, wanted, "{precision}");
        assert!(!operators.contains_key(&Operator { domain: "", name: "MatMul" }), "{precision}");
        let foreign = operators.keys().filter(|operator| operator.domain == "com.microsoft");
        assert_eq!(foreign.count(), 0, "{precision}");
    }
}

/// A task without a cache has no operator that updates one.
#[test]
fn a_native_classifier_has_attention_in_standard_operators() {
    let options = GraphOptions {
        precision: Precision::Q4,
        profile: Profile::Native,
        ..GraphOptions::for_task(Task::SequenceClassification)
    };
    let graph = build(&tiny_config(), &options).unwrap();
    assert_eq!(graph.kv_cache, None);
    let operators = graph.operators();
    assert!(operators.contains_key(&Operator { domain: "", name: "Softmax" }));
    assert!(!operators.contains_key(&Operator { domain: "jetmoe", name: "Attention" }));
}

/// A part that is kept in float32 is multiplied by standard operators, expert by expert; the others stay as they are.
#[test]
fn a_part_that_is_kept_in_float32_leaves_our_operators() {
    for (kept, gone) in [
        ("f32:attention", &["ExpertLinear", "ExpertLinearSum"][..]),
        ("f16:mlp", &["ExpertMlp"]),
        ("f32:lm_head", &["LookUp"]),
    ] {
        let weights = WeightPlan { overrides: vec![kept.parse().unwrap()], ..WeightPlan::default() };
        let options = GraphOptions {
            precision: Precision::Q4,
            profile: Profile::Native,
            weights,
            ..GraphOptions::for_task(Task::CausalLm)
        };
        let operators = build(&tiny_config(), &options).unwrap().operators();
        let has = |name| operators.contains_key(&Operator { domain: "jetmoe", name });
        for name in ["ExpertLinear", "ExpertLinearSum", "ExpertMlp", "Linear", "LookUp"] {
            assert_eq!(has(name), !gone.contains(&name), "{kept}, {name}");
        }
    }
}

#[test]
fn every_operator_set_gives_the_same_graph() {
    let at = |opset: u32| {
        let options =
            GraphOptions { opset: Opset::new(opset).unwrap(), ..GraphOptions::for_task(Task::CausalLm) };
        let text = text::render(&build(&tiny_config(), &options).unwrap());
        text.split_once('\n').unwrap().1.to_owned()
    };
    for opset in Opset::MINIMUM.version()..=Opset::MAXIMUM.version() {
        assert_eq!(at(opset), at(Opset::default().version()), "opset {opset}");
    }
}

#[test]
fn an_opset_outside_the_tested_range_is_refused() {
    for opset in [17, 24] {
        let message = Opset::new(opset).unwrap_err().to_string();
        assert_eq!(message, format!("opset {opset} is not supported; choose one from 18 to 23"));
    }
}

#[test]
fn the_full_size_graph_is_small_and_its_weights_stay_references() {
    let value = json!({ "model_type": "jetmoe", "num_hidden_layers": 24 });
    let config = ModelConfig::from_json(&value).unwrap();
    let graph = build(&config, &GraphOptions::for_task(Task::CausalLm)).unwrap();
    // 8.5 B parameters in float32, none of them in memory
    assert_eq!(graph.weight_bytes() / 4, 8_522_237_952);
    assert!(graph.operators().values().sum::<usize>() < 10_000);
}

#[test]
fn an_expert_works_on_as_many_rows_as_tokens_chose_it() {
    let graph = build(&tiny_config(), &GraphOptions::for_task(Task::CausalLm)).unwrap();
    let text = text::render(&graph);
    let mut products = 0;
    for (scope, part) in [("query", "attention"), ("output", "attention"), ("mlp", "mlp")] {
        for expert in 0..3 {
            let heading = match scope {
                "mlp" => format!("\nlayers.0/mlp/experts.{expert}\n"),
                _ => format!("\nlayers.0/self_attention/{scope}/experts.{expert}\n"),
            };
            let section = text.split_once(&heading).unwrap().1.split("\n\n").next().unwrap();
            let lines: Vec<&str> = section.lines().collect();
            for pair in lines.windows(2).filter(|pair| pair[0].contains("= MatMul(")) {
                let rows = format!("float32[slots_of_{part}_expert_0_{expert}, ");
                assert!(pair[1].trim().starts_with(&rows), "{heading}{section}");
                products += 1;
            }
        }
    }
    assert_eq!(products, 3 * (1 + 1 + 2));
}
