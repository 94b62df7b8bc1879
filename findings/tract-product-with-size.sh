#!/usr/bin/env bash
# tract 0.23.9 (crates.io) cannot load a graph that multiplies a Range by the size of an input.
# The graph gives the first row of every sequence of a batch: Range(0, batch, 1) times the sequence's length, both read from
# the shape of the input, whose sizes are symbols. A good guess: it loads, as it does with Add in the place of Mul. Seen: the
# typed model fails to optimise with "Undetermined symbol in expression: sequence"; the same graph with Add gives a result.
# What helps: differences of ranges, for instance Range(0, batch * length, 1) reshaped to [batch, length].
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.22.0 numpy==2.4.6 ml_dtypes==0.6.0
venv/bin/python - <<'PYTHON'
import numpy, onnx
from onnx import TensorProto, helper, numpy_helper

scalars = [numpy_helper.from_array(numpy.array(value, numpy.int64), name) for name, value in (("zero", 0), ("one", 1))]
for operator in ("Mul", "Add"):
    nodes = [
        helper.make_node("Shape", ["ids"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch_size"]),
        helper.make_node("Gather", ["shape", "one"], ["length"]),
        helper.make_node("Range", ["zero", "batch_size", "one"], ["indices"]),
        helper.make_node(operator, ["indices", "length"], ["rows"]),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])
    rows = helper.make_tensor_value_info("rows", TensorProto.INT64, ["batch"])
    model = helper.make_model(helper.make_graph(nodes, "rows", [ids], [rows], scalars),
                              opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, f"{operator}.onnx")
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

fn rows(path: &str) -> TractResult<String> {
    let mut model = tract_onnx::onnx().with_ignore_value_info(true).model_for_path(path)?;
    let (batch, sequence) = (model.symbols.sym("batch"), model.symbols.sym("sequence"));
    model.set_input_fact(0, i64::fact([batch.to_dim(), sequence.to_dim()]).into())?;
    let model = model.into_typed()?.into_optimized()?.into_runnable()?;
    let rows = model.run(tvec![Tensor::zero::<i64>(&[3, 4])?.into_tvalue()])?[0].cast_to::<i64>()?.into_owned();
    Ok(format!("{:?}", rows.try_as_plain_ram()?.as_slice::<i64>()?))
}

fn main() {
    for operator in ["Mul", "Add"] {
        match rows(&format!("{operator}.onnx")) {
            Ok(rows) => println!("{operator}: {rows}"),
            Err(error) => println!("{operator}: {}", error.root_cause()),
        }
    }
}
RUST
found=$(CARGO_TARGET_DIR="$work/target" cargo run --quiet)
expected='Mul: Undetermined symbol in expression: sequence
Add: [4, 5, 6]'
printf '%s\n' "$found"
diff <(printf '%s\n' "$expected") <(printf '%s\n' "$found") || { echo "the behaviour changed" >&2; exit 1; }
