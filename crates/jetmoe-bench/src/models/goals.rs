//! What the project wants to reach against the baselines.

use super::BenchTarget::{
    JetmoeBf16, JetmoeF32, JetmoeQ4, JetmoeQ4Onnxruntime, JetmoeQ4Tract, LlamaCpp, OnnxruntimeGenai,
    TransformersBf16, TransformersOnnx,
};
use crate::goal::{Goal, Target, Unit};
use crate::rounds::Rounds;

pub(super) fn goals(rounds: &Rounds<'_>) -> Vec<Goal> {
    let ratio = |above: Option<f64>, below: Option<f64>| Some(above? / below?);
    let goal =
        |what: &str, measured, target| Goal { what: what.to_owned(), measured, target, unit: Unit::Ratio };
    let share = |what, measured, target| Goal { unit: Unit::Percent, ..goal(what, measured, target) };
    let decode = |target, shape| rounds.decode(target, shape);
    let seconds_per_byte = |target, bytes: Option<f64>| ratio(rounds.load_seconds(target), bytes);
    // transformers computes in float32 where the processor has no bfloat16
    let sets = rounds.raw["instruction_sets"].as_array();
    let has_bfloat16 =
        sets.is_some_and(|sets| sets.iter().any(|set| set == "avx512bf16" || set == "amxbf16"));
    let (decode_goal, prompt_goal) = if has_bfloat16 { (3.5, 4.5) } else { (4.0, 2.5) };
    let first_token = |target| Some(rounds.load_seconds(target)? * 1e3 + rounds.prefill(target, (1, 128))?);
    vec![
        goal(
            "decode, q4: times as fast as transformers in bfloat16",
            ratio(decode(TransformersBf16, (1, 128)), decode(JetmoeQ4, (1, 128))),
            Target::AtLeast(decode_goal),
        ),
        goal(
            "the same with ONNX Runtime's contrib operators",
            ratio(decode(TransformersBf16, (1, 128)), decode(JetmoeQ4Onnxruntime, (1, 128))),
            Target::AtLeast(2.5),
        ),
        goal(
            "decode, f32: times as fast as transformers' ONNX graph in ONNX Runtime",
            ratio(decode(TransformersOnnx, (1, 128)), decode(JetmoeF32, (1, 128))),
            Target::AtLeast(1.5),
        ),
        // the checkpoint's weights are bfloat16, so this computes with the same values, in float32
        goal(
            "the same, with the weights as the checkpoint has them in bfloat16",
            ratio(decode(TransformersOnnx, (1, 128)), decode(JetmoeBf16, (1, 128))),
            Target::AtLeast(1.5),
        ),
        goal(
            "prefill of 512 tokens, q4: times as fast as transformers in bfloat16",
            ratio(rounds.prefill(TransformersBf16, (1, 512)), rounds.prefill(JetmoeQ4, (1, 512))),
            Target::AtLeast(prompt_goal),
        ),
        goal(
            "decode, q4: times as fast as llama.cpp",
            ratio(decode(LlamaCpp, (1, 128)), decode(JetmoeQ4, (1, 128))),
            Target::Open,
        ),
        goal(
            "prefill of 512 tokens, q4: times as fast as llama.cpp",
            ratio(rounds.prefill(LlamaCpp, (1, 512)), rounds.prefill(JetmoeQ4, (1, 512))),
            Target::Open,
        ),
        goal(
            "decode with ONNX Runtime's contrib operators: times as fast as onnxruntime-genai on the same graph",
            ratio(decode(OnnxruntimeGenai, (1, 128)), decode(JetmoeQ4Onnxruntime, (1, 128))),
            Target::Open,
        ),
        goal(
            "prefill of 512 tokens, q4: time in tract as a multiple of that in ONNX Runtime",
            ratio(rounds.prefill(JetmoeQ4Tract, (1, 512)), rounds.prefill(JetmoeQ4, (1, 512))),
            Target::AtMost(1.15),
        ),
        goal(
            "decode, q4: time in tract as a multiple of that in ONNX Runtime",
            ratio(decode(JetmoeQ4Tract, (1, 128)), decode(JetmoeQ4, (1, 128))),
            Target::Below(1.3),
        ),
        goal(
            "decode, q4, after 2048 tokens: time of a step as a multiple of one after 64",
            ratio(decode(JetmoeQ4, (1, 2048)), decode(JetmoeQ4, (1, 64))),
            Target::AtMost(1.35),
        ),
        goal(
            "decode, q4: tokens/s of batch 8 as a multiple of batch 1",
            ratio(decode(JetmoeQ4, (1, 128)).map(|step| 8.0 * step), decode(JetmoeQ4, (8, 128))),
            Target::AtLeast(1.7),
        ),
        share(
            "decode, q4: share of a step outside ONNX Runtime",
            rounds.of_shape(JetmoeQ4, (1, 128), "/decode/runtime_overhead"),
            Target::Below(0.03),
        ),
        goal(
            "load, q4: seconds per GB of weights as a multiple of transformers' in bfloat16",
            ratio(
                seconds_per_byte(JetmoeQ4, rounds.number(&JetmoeQ4.name(), "/data_bytes")),
                seconds_per_byte(TransformersBf16, rounds.raw["checkpoint_bytes"].as_f64()),
            ),
            Target::Below(1.0),
        ),
        goal(
            "load, q4: times as fast as with ONNX Runtime's contrib operators",
            ratio(rounds.load_seconds(JetmoeQ4Onnxruntime), rounds.load_seconds(JetmoeQ4)),
            Target::AtLeast(5.0),
        ),
        // transformers maps its weights and reads them when they are first used
        goal(
            "load and first token of 128, q4: times as fast as transformers in bfloat16",
            ratio(first_token(TransformersBf16), first_token(JetmoeQ4)),
            Target::Open,
        ),
        share(
            "decode, q4: share of the machine's read bandwidth",
            rounds.of_shape(JetmoeQ4, (1, 128), "/decode/share_of_read_bandwidth"),
            Target::AtLeast(0.5),
        ),
        share(
            "the same with ONNX Runtime's contrib operators",
            rounds.of_shape(JetmoeQ4Onnxruntime, (1, 128), "/decode/share_of_read_bandwidth"),
            Target::AtLeast(0.5),
        ),
    ]
}
