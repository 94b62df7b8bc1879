#!/usr/bin/env bash
# onnx 1.22.0 (PyPI) does not load a model with external data from the cache of huggingface_hub 2.4.0.
# The cache has the files under blobs/ and symbolic links to them under snapshots/. A good guess: whatever reads the
# graph there reads its data file too, as ONNX Runtime 1.32.0 does. Seen: onnx.load and onnx.checker refuse a data file
# that is a symbolic link, and one with two hard links, as two artifacts that share it have.
# What helps: snapshot_download(local_dir=...), or a copy.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnx==1.22.0 onnxruntime==1.32.0 numpy==2.4.6 ml_dtypes==0.6.0
found=$(cd "$work" && venv/bin/python - 2>/dev/null <<'PYTHON'
import os
import numpy, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper

weight = numpy_helper.from_array(numpy.eye(64, dtype=numpy.float32), "w")
values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in "xy"]
graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight])
stored = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()

def save(path):
    # onnx.save leaves the references to the data file in the model that it is given
    model = onnx.load_from_string(stored)
    onnx.save(model, path, save_as_external_data=True, location="model.onnx_data", size_threshold=0)

for folder in ("plain", "linked", "cache/blobs", "cache/snapshots/main"):
    os.makedirs(folder)
save("plain/model.onnx")
save("linked/model.onnx")
os.link("linked/model.onnx_data", "linked/other.onnx_data")
# the layout of huggingface_hub's cache, whose blobs are named after their digests
save("cache/blobs/model.onnx")
for blob, name in (("1", "model.onnx"), ("2", "model.onnx_data")):
    os.rename(f"cache/blobs/{name}", f"cache/blobs/{blob}")
    os.symlink(f"../../blobs/{blob}", f"cache/snapshots/main/{name}")

def outcome(action):
    try:
        action()
        return "loads"
    except Exception as error:
        return f"{type(error).__name__}, {str(error).rsplit(', but ', 1)[-1].split(',')[0].rstrip('.')}"

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
for what, folder in (("a plain file", "plain"), ("two hard links", "linked"), ("the hub's cache", "cache/snapshots/main")):
    path = f"{folder}/model.onnx"
    print(f"{what}: onnx {outcome(lambda: onnx.load(path))}; "
          f"onnxruntime {outcome(lambda: onnxruntime.InferenceSession(path))}")
PYTHON
)
expected='onnx 1.22.0 onnxruntime 1.32.0
a plain file: onnx loads; onnxruntime loads
two hard links: onnx ValidationError, it has multiple hard links; onnxruntime loads
the hub'\''s cache: onnx ValidationError, it is a symbolic link; onnxruntime loads'
printf '%s\n' "$found"
diff <(printf '%s\n' "$expected") <(printf '%s\n' "$found") || { echo "the behaviour changed" >&2; exit 1; }
