#!/usr/bin/env bash
# tract 0.23.9 (crates.io) optimises a causal mask away when both of its sides are the same Range.
# The mask is Where(LessOrEqual(columns, rows), 0, -1), columns and rows being one Range of the sequence's length with an
# axis inserted before and after. A good guess: into_optimized changes no result. Seen: [4, 4] before it, [2, 1] after it.
# What helps: rows from CumSum or position_ids, or a Range of their own.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.22.0 numpy==2.4.6 ml_dtypes==0.6.0
venv/bin/python - <<'PYTHON'
import numpy, onnx
from onnx import TensorProto, helper, numpy_helper

constants = {"one": 1, "zero": 0, "first": [0], "second": [1]}
constants = [numpy_helper.from_array(numpy.array(value, numpy.int64), name) for name, value in constants.items()]
constants += [numpy_helper.from_array(numpy.array(value, numpy.float32), name) for name, value in (("seen", 0), ("hidden", -1))]
nodes = [
    helper.make_node("Shape", ["ids"], ["shape"]),
    helper.make_node("Gather", ["shape", "one"], ["length"]),
    helper.make_node("Range", ["zero", "length", "one"], ["range"]),
    helper.make_node("Unsqueeze", ["range", "first"], ["columns"]),
    helper.make_node("Unsqueeze", ["range", "second"], ["rows"]),
    helper.make_node("LessOrEqual", ["columns", "rows"], ["is_seen"]),
    helper.make_node("Where", ["is_seen", "seen", "hidden"], ["mask"]),
]
ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])
mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["sequence", "sequence"])
model = helper.make_model(helper.make_graph(nodes, "mask", [ids], [mask], constants),
                          opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "mask.onnx")
PYTHON
mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "probe"
version = "0.0.0"
edition = "2024"
[dependencies]
tract-onnx = { version = "=0.23.9", default-features = false }
[profile.dev]
debug = false
[workspace]
TOML
cat > src/main.rs <<'RUST'
use tract_onnx::prelude::*;

fn main() -> TractResult<()> {
    for is_optimized in [false, true] {
        let model = tract_onnx::onnx().with_ignore_value_info(true).model_for_path("mask.onnx")?.into_typed()?;
        let model = if is_optimized { model.into_optimized()? } else { model };
        let ids = Tensor::zero::<i64>(&[1, 4])?.into_tvalue();
        let mask = model.into_runnable()?.run(tvec![ids])?[0].clone().into_tensor();
        let elements = mask.try_as_plain_ram()?;
        println!("optimized {is_optimized}: {:?} {:?}", mask.shape(), elements.as_slice::<f32>()?);
    }
    Ok(())
}
RUST
found=$(CARGO_TARGET_DIR="$work/target" cargo run --quiet)
expected='optimized false: [4, 4] [0.0, -1.0, -1.0, -1.0, 0.0, 0.0, -1.0, -1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0]
optimized true: [2, 1] [-1.0, 0.0]'
printf '%s\n' "$found"
diff <(printf '%s\n' "$expected") <(printf '%s\n' "$found") || { echo "the behaviour changed" >&2; exit 1; }
