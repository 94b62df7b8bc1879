"""Disables the telemetry of onnxruntime, unless the user chose otherwise. Import it before onnxruntime."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
