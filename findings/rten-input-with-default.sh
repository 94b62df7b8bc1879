#!/usr/bin/env bash
# rten 0.27.0 (crates.io) ignores a value for an input that has a default.
# In ONNX an input that is also an initializer is optional: the initializer is what it is where no value is given. ONNX
# Runtime 1.32.0 (PyPI) takes a value for it. A good guess: rten takes one too, or refuses it. Seen: the input is not
# listed, and a value that is given for it changes nothing, without an error.
# What helps: removing the initializer, so that the input is required.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    onnx==1.22.0 onnxruntime==1.32.0 numpy==2.4.6 ml_dtypes==0.6.0
runtime=$(venv/bin/python - 2>/dev/null <<'PYTHON'
import numpy, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper

x, bias, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "bias", "y"))
default = numpy_helper.from_array(numpy.array([10, 20], numpy.float32), "bias")
graph = helper.make_graph([helper.make_node("Add", ["x", "bias"], ["y"])], "g", [x, bias], [y], [default])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "model.onnx")
session = onnxruntime.InferenceSession("model.onnx")
feeds = {"x": numpy.array([1, 2], numpy.float32), "bias": numpy.array([100, 200], numpy.float32)}
print("onnxruntime:", session.run(None, feeds)[0].tolist())
PYTHON
)
mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "probe"
version = "0.0.0"
edition = "2024"
[dependencies]
rten = "=0.27.0"
[profile.dev]
debug = false
[workspace]
TOML
cat > src/main.rs <<'RUST'
use rten::{Model, Value};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::load_file("model.onnx")?;
    let x = Value::from_shape([2], vec![1_f32, 2.0])?;
    let bias = Value::from_shape([2], vec![100_f32, 200.0])?;
    let inputs = vec![(model.node_id("x")?, x.into()), (model.node_id("bias")?, bias.into())];
    let [y] = model.run_n(inputs, [model.node_id("y")?], None)?;
    println!("rten: {:?}", y.into_shape_vec::<f32, 1>()?.1);
    Ok(())
}
RUST
found="$runtime
$(CARGO_TARGET_DIR="$work/target" cargo run --quiet)"
expected='onnxruntime: [101.0, 202.0]
rten: [11.0, 22.0]'
printf '%s\n' "$found"
diff <(printf '%s\n' "$expected") <(printf '%s\n' "$found") || { echo "the behaviour changed" >&2; exit 1; }
