"""Takes the place of `jetmoe` and `jetmoe-export` in tests of the steps: answers as they do on a machine with a GPU.

`FAKE_JETMOE` names what is wrong there, as in `cpu`: the processor computes instead.
"""

import json
import os
import pathlib
import sys

TEXT = " of the reign of king Hezekiah sent"
FAULTS = os.environ.get("FAKE_JETMOE", "").split(",")


def option(name, default=""):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def provider_options():
    values = [sys.argv[place + 1] for place, word in enumerate(sys.argv) if word == "--provider-option"]
    values += [word.partition("=")[2] for word in sys.argv if word.startswith("--provider-option=")]
    return dict(value.split("=", 1) for value in values)


def fail(message):
    sys.exit(f"error: {message}")


def export():
    folder = pathlib.Path(option("--output"))
    folder.mkdir(parents=True)
    (folder / "jetmoe.json").write_text("{}")


def synth():
    folder = pathlib.Path(option("--output"))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")


def devices():
    usable = [{"name": name, "usable": True, "detail": ""} for name in ("CUDAExecutionProvider", "TensorrtExecutionProvider")]
    print(json.dumps({"backends": [{"name": "ort", "providers": usable}]}))


def run():
    device, options = option("--device"), provider_options()
    if "no driver" in FAULTS and device != "cpu":
        fail(f"the device {device} cannot be used: no driver")
    if device == "cuda:99":
        fail("the device cuda:99 cannot be used: invalid device ordinal")
    if int(options.get("memory_limit", 1 << 40)) < 1 << 30:
        fail("Available memory of 0 is smaller than requested bytes of 1048576")
    if device == "auto":
        print("warning: device auto takes cuda:0", file=sys.stderr)
    for name in ("engine_cache", "timing_cache"):
        if name in options:
            pathlib.Path(options[name], "file").touch()
    if "--trace" in sys.argv:
        call = lambda at: {"cat": "Session", "name": "model_run", "ts": at, "dur": 100, "args": {}}
        arguments = {"op_name": "MemcpyToHost", "output_type_shape": [{"float": [8]}], "provider": "CUDAExecutionProvider"}
        node = {"cat": "Node", "name": "copy_kernel_time", "ts": 250, "dur": 10, "args": arguments}
        pathlib.Path(option("--trace")).write_text(json.dumps([call(0), call(200), node]))
    print(TEXT if "other text" not in FAULTS or device == "cpu" else " another text")


def verify():
    device, options = option("--device"), provider_options()
    coarse = "true" in (options.get("tf32"), options.get("fp16"))
    tensor = {"name": "logits", "max_relative_error": 1e-3 if coarse else 1e-6, "median_token_error": 1e-6}
    runtime = "ort 1.31.1" if "cpu" in FAULTS else f"ort 1.31.1 ({device}:0)"
    greedy = {"identical": True, "required": True, "first_difference": None}
    result = {"runtime": runtime, "passed": True, "tensors": [tensor], "greedy": greedy}
    print(json.dumps({"backends": [result]}))


def evaluate():
    print(json.dumps({"results": [{"perplexity": 24.89}]}))


def bench():
    runs = []
    for batch in option("--batch").split(","):
        for prompt in option("--prompt-tokens").split(","):
            decode = {"milliseconds_per_step": {"median": 2.0}, "weight_bytes_per_step": 1e9}
            prefill = {"milliseconds": {"median": 4.0}}
            runs.append({"batch": int(batch), "prompt_tokens": int(prompt), "prefill": prefill, "decode": decode})
    print(json.dumps({"results": [{"runs": runs}]}))


if pathlib.Path(sys.argv[0]).name == "jetmoe-export":
    export()
else:
    commands = {"synth": synth, "devices": devices, "run": run, "verify": verify, "eval": evaluate, "bench": bench}
    commands[sys.argv[1]]()
