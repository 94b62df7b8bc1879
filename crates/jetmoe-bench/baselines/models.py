"""Measures what jetmoe is compared with, on the same checkpoint. Prints one JSON object in the fields of `jetmoe bench`.

`cargo xtask bench` calls it, once per baseline and round, so that the memory and threads of one are released before the next
begins. `--export DIR` writes transformers' own ONNX graph instead of measuring.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported

BASELINES = [
    "transformers-bf16",
    "transformers-f32",
    "transformers-onnx",
    "openvino",
    "llama-cpp",
    "onnxruntime-genai",
]


class Transformers:
    """transformers itself, with its cache; like its `generate`, it computes logits of the last token only."""

    def __init__(self, arguments, dtype):
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(arguments.threads)
        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(arguments.checkpoint, dtype=getattr(torch, dtype)).eval()
        self.vocab_size = self.model.config.vocab_size
        self.runtime = f"transformers {version('transformers')}, torch {version('torch')}, {dtype}"

    def begin(self, batch):
        self.cache = None

    def step(self, ids):
        with self.torch.inference_mode():
            output = self.model(
                self.torch.from_numpy(ids), past_key_values=self.cache, use_cache=True, logits_to_keep=1
            )
        self.cache = output.past_key_values
        return output.logits.float().numpy()


class OnnxRuntime:
    """transformers' ONNX graph in ONNX Runtime; the cache stays where ONNX Runtime put it."""

    def __init__(self, arguments):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = arguments.threads
        self.ort = onnxruntime
        self.session = onnxruntime.InferenceSession(arguments.graph, options, providers=["CPUExecutionProvider"])
        self.inputs = [node for node in self.session.get_inputs() if "past_key_values" in node.name]
        self.outputs = [node.name for node in self.session.get_outputs()]
        self.vocab_size = vocab_size(arguments.checkpoint)
        self.runtime = f"transformers {version('transformers')} graph, onnxruntime {version('onnxruntime')}, float32"

    def begin(self, batch):
        shapes = [(batch, int(node.shape[1]), 0, int(node.shape[3])) for node in self.inputs]
        self.past = [self.ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for shape in shapes]
        self.length = 0

    def step(self, ids):
        self.length += ids.shape[1]
        mask = np.ones((ids.shape[0], self.length), np.int64)
        feed = {"input_ids": ids, "attention_mask": mask}
        feed = {name: self.ort.OrtValue.ortvalue_from_numpy(value) for name, value in feed.items()}
        feed |= {node.name: value for node, value in zip(self.inputs, self.past, strict=True)}
        logits, *self.past = self.session.run_with_ort_values(self.outputs, feed)
        return logits.numpy()[:, -1]


class OpenVino:
    """Our portable float32 graph in OpenVINO, which may compute in bfloat16."""

    def __init__(self, arguments):
        import openvino

        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": arguments.threads, "INFERENCE_PRECISION_HINT": "bf16"}
        self.openvino = openvino
        self.compiled = core.compile_model(arguments.graph, "CPU", settings)
        self.precision = self.compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.request = self.compiled.create_infer_request()
        names = [port.get_any_name() for port in self.compiled.inputs]
        self.past_names = [name for name in names if name.startswith("past_key_values")]
        self.vocab_size = vocab_size(arguments.checkpoint)
        self.runtime = f"openvino {version('openvino')}, computing in {self.precision}"

    def begin(self, batch):
        self.past = {}
        for name in self.past_names:
            shape = self.compiled.input(name).get_partial_shape()
            empty = [batch, shape[1].get_length(), 0, shape[3].get_length()]
            self.past[name] = self.openvino.Tensor(np.zeros(empty, np.float32))
        self.length = 0

    def step(self, ids):
        batch, tokens = ids.shape
        past, self.length = self.length, self.length + tokens
        positions = np.broadcast_to(np.arange(past, self.length, dtype=np.int64), (batch, tokens))
        feed = {
            "input_ids": ids,
            "attention_mask": np.ones((batch, self.length), np.int64),
            "position_ids": np.ascontiguousarray(positions),
        }
        self.request.infer(feed | self.past, share_inputs=True)
        # a copy, as the request writes its next outputs to the same place
        self.past = {
            name: self.openvino.Tensor(self.request.get_tensor(present(name)).data.copy())
            for name in self.past_names
        }
        return self.request.get_tensor("logits").data[:, -1].copy()


class OnnxRuntimeGenai:
    """Our graph of the profile `onnxruntime` in onnxruntime-genai, with greedy sampling."""

    def __init__(self, arguments):
        import onnxruntime_genai

        artifact = next(folder for folder in Path(arguments.graph).parents if (folder / "genai_config.json").exists())
        graph = Path(arguments.graph).relative_to(artifact).as_posix()
        options = {"intra_op_num_threads": arguments.threads}
        config = onnxruntime_genai.Config(str(artifact))
        config.overlay(json.dumps({"model": {"decoder": {"filename": graph, "session_options": options}}}))
        self.genai = onnxruntime_genai
        self.model = onnxruntime_genai.Model(config)
        self.new_tokens = arguments.new_tokens
        self.vocab_size = vocab_size(arguments.checkpoint)
        self.runtime = f"onnxruntime-genai {version('onnxruntime-genai')}"

    def begin(self, batch):
        self.batch = batch
        self.generator = None

    def step(self, ids):
        if self.generator is None:
            # room for the token that follows the prompt and for those of the steps
            length = ids.shape[1] + 1 + self.new_tokens
            parameters = self.genai.GeneratorParams(self.model)
            # a minimum keeps the token that ends a text from being chosen
            parameters.set_search_options(
                batch_size=self.batch,
                max_length=length,
                min_length=length,
                do_sample=False,
                past_present_share_buffer=True,
            )
            self.generator = self.genai.Generator(self.model, parameters)
            self.generator.append_tokens(ids.astype(np.int32))
            logits = self.generator.get_output("logits")[:, -1]
            self.generator.generate_next_token()
            return logits
        # computes the logits of the token that was chosen before, and chooses the next one; ids of its own are not possible
        self.generator.generate_next_token()
        return self.generator.get_output("logits")[:, -1]


def present(name):
    return name.replace("past_key_values", "present")


def version(package):
    return importlib.metadata.version(package)


def vocab_size(checkpoint):
    return json.loads((Path(checkpoint) / "config.json").read_text())["vocab_size"]


def load(arguments):
    """The model, and how many milliseconds it took to load it, the import of its library aside."""
    match arguments.baseline:
        case "transformers-onnx":
            import onnxruntime  # noqa: F401
        case "openvino":
            import openvino  # noqa: F401
        case "llama-cpp":
            import llama_cpp  # noqa: F401
        case "onnxruntime-genai":
            import onnxruntime_genai  # noqa: F401
        case _:
            # transformers imports a model's module when it is asked for it
            from transformers import AutoModelForCausalLM, JetMoeForCausalLM  # noqa: F401
    return timed(lambda: construct(arguments))


def construct(arguments):
    match arguments.baseline:
        case "transformers-bf16":
            return Transformers(arguments, "bfloat16")
        case "transformers-f32":
            return Transformers(arguments, "float32")
        case "transformers-onnx":
            return OnnxRuntime(arguments)
        case "openvino":
            return OpenVino(arguments)
        case "llama-cpp":
            from llama_cpp import LlamaCpp

            return LlamaCpp(arguments)
        case "onnxruntime-genai":
            return OnnxRuntimeGenai(arguments)


def spread(values):
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": middle, "lower_quartile": low, "upper_quartile": high}


def timed(action):
    begun = time.perf_counter()
    result = action()
    return result, (time.perf_counter() - begun) * 1e3


def measure(model, batch, prompt_tokens, arguments):
    random = np.random.default_rng(0)
    prefill, steps = [], []
    # the first round only warms up
    for repetition in range(arguments.repetitions + 1):
        model.begin(batch)
        prompt = random.integers(0, model.vocab_size, (batch, prompt_tokens))
        logits, milliseconds = timed(lambda: model.step(prompt))
        if not np.isfinite(logits).all():
            sys.exit(f"{arguments.baseline} computed logits with NaN")
        times = [
            timed(lambda: model.step(random.integers(0, model.vocab_size, (batch, 1))))[1]
            for _ in range(arguments.new_tokens)
        ]
        if repetition > 0:
            prefill.append(milliseconds)
            steps += times
    return {
        "batch": batch,
        "prompt_tokens": prompt_tokens,
        "new_tokens": arguments.new_tokens,
        "prefill": {"milliseconds": spread(prefill)},
        "decode": {"milliseconds_per_step": spread(steps)},
    }


def export(checkpoint, folder):
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.exporters import OnnxConfig, OnnxExporter

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.no_grad():
        # sizes that differ from one another and from 1, which the exporter would take for fixed
        cache = model(torch.ones((2, 5), dtype=torch.long), use_cache=True).past_key_values
        inputs = {
            "input_ids": torch.ones((2, 3), dtype=torch.long),
            "attention_mask": torch.ones((2, 8), dtype=torch.long),
            "past_key_values": cache,
        }
        exported = OnnxExporter().export(model, inputs, config=OnnxConfig(dynamic=True))
    exported.save_pretrained(folder)


def shapes(text):
    return [tuple(int(number) for number in pair.split("x")) for pair in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--export", metavar="DIR")
    parser.add_argument("--baseline", choices=BASELINES)
    parser.add_argument("--graph", help="the ONNX or GGUF file, for a baseline that needs one")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--shapes", type=shapes, default=[(1, 128)], metavar="BATCHxPROMPT,...")
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.export:
        export(arguments.checkpoint, arguments.export)
        return
    if not arguments.baseline:
        parser.error("--baseline or --export is needed")
    model, milliseconds = load(arguments)
    runs = [measure(model, batch, prompt_tokens, arguments) for batch, prompt_tokens in arguments.shapes]
    print(json.dumps({"runtime": model.runtime, "load_seconds": milliseconds / 1e3, "runs": runs}))


if __name__ == "__main__":
    main()
