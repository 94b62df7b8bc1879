#!/usr/bin/env bash
# safetensors.numpy 0.8.0 (PyPI) writes a transposed array in the order of its memory, under the transposed shape.
# A good guess: the elements come back where they were, as with numpy.save; or the array is refused, as safetensors.torch
# refuses a tensor that is not contiguous. Seen: no error, and a file with the elements in the wrong places.
# What helps: numpy.ascontiguousarray before save_file.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
found=$(cd "$work" && venv/bin/python - <<'PYTHON'
import numpy, safetensors
from safetensors.numpy import load_file, save_file

print("safetensors", safetensors.__version__)
matrix = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
arrays = {
    "transposed": matrix.T,
    "column-major": numpy.asfortranarray(matrix),
    "contiguous": numpy.ascontiguousarray(matrix.T),
}
for name, array in arrays.items():
    save_file({"x": array}, "x.safetensors")
    read = load_file("x.safetensors")["x"]
    print(f"{name}: saved {array.tolist()}, read {read.tolist()}")
PYTHON
)
expected='safetensors 0.8.0
transposed: saved [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]], read [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
column-major: saved [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], read [[0.0, 3.0, 1.0], [4.0, 2.0, 5.0]]
contiguous: saved [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]], read [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]'
printf '%s\n' "$found"
diff <(printf '%s\n' "$expected") <(printf '%s\n' "$found") || { echo "the behaviour changed" >&2; exit 1; }
