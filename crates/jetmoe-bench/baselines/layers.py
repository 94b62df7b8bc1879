"""Measures one MLP layer of a mixture of experts in what jetmoe-kernels is compared with. Prints one JSON object.

`cargo xtask bench --kernels` calls it, once per baseline and round, so that the memory and threads of one are released before
the next begins. Which experts a token chooses is computed as `crates/jetmoe-kernels/benches/layers/layer.rs` computes it.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import sys
import time

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported

BASELINES = ["onnxruntime", "openvino", "transformers-bf16"]
HIDDEN, INTERMEDIATE, EXPERTS, PER_TOKEN, GROUP = 2048, 5632, 8, 2, 32
WEIGHTS = 3 * HIDDEN * INTERMEDIATE


class OnnxRuntime:
    """The layer as our portable 4-bit graph has it; ONNX Runtime makes `MatMulNBits` of its products."""

    # codes of 4 bits, and a float32 scale for each group
    bytes_per_weight = 0.5 + 4 / GROUP

    def __init__(self, arguments):
        import onnxruntime

        self.ort = onnxruntime
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = arguments.threads
        # products with activations rounded to 8 bits, as ours; by default ONNX Runtime computes in float32
        self.options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "4")
        self.layers = [self.load(layer(number)) for number in range(arguments.layers)]
        self.runtime = f"onnxruntime {version('onnxruntime')}, 4-bit, activations in 8 bits"

    def load(self, model):
        return self.ort.InferenceSession(model, self.options, providers=["CPUExecutionProvider"])

    def prepare(self, x, experts):
        return {"x": x, "experts": experts, "gates": np.full(experts.shape, 0.5, np.float32)}

    def run(self, layer, prepared):
        return layer.run(None, prepared)[0]


class OpenVino:
    """The same file in OpenVINO."""

    bytes_per_weight = OnnxRuntime.bytes_per_weight

    def __init__(self, arguments, precision):
        import openvino

        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": arguments.threads, "INFERENCE_PRECISION_HINT": precision}
        models = (core.read_model(layer(number), b"") for number in range(arguments.layers))
        compiled = [core.compile_model(model, "CPU", settings) for model in models]
        self.precision = compiled[0].get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.layers = [model.create_infer_request() for model in compiled]
        self.runtime = f"openvino {version('openvino')}, 4-bit, computing in {self.precision}"

    def prepare(self, x, experts):
        return {"x": x, "experts": experts, "gates": np.full(experts.shape, 0.5, np.float32)}

    def run(self, layer, prepared):
        layer.infer(prepared, share_inputs=True)
        return layer.get_output_tensor(0).data


class Transformers:
    """transformers' own module in bfloat16, eagerly; its router is told what to choose."""

    bytes_per_weight = 2

    def __init__(self, arguments):
        import torch
        from transformers import JetMoeConfig
        from transformers.models.jetmoe.modeling_jetmoe import JetMoeMoE

        torch.set_num_threads(arguments.threads)
        torch.manual_seed(0)
        self.torch = torch
        config = JetMoeConfig(
            hidden_size=HIDDEN,
            intermediate_size=INTERMEDIATE,
            num_local_experts=EXPERTS,
            num_experts_per_tok=PER_TOKEN,
        )
        self.layers = []
        for _ in range(arguments.layers):
            with torch.device("meta"):
                module = JetMoeMoE(config)
            module = module.to(torch.bfloat16).to_empty(device="cpu").eval()
            for weight in module.parameters():
                # one matrix for every expert, as drawing all of them would take minutes
                weight.data.copy_((0.05 * torch.randn(weight.shape[1:])).bfloat16())
            module.router.layer = told_router(torch)
            self.layers.append(module)
        self.runtime = f"transformers {version('transformers')}, torch {version('torch')}, bfloat16"

    def prepare(self, x, experts):
        logits = np.zeros((len(experts), EXPERTS), np.float32)
        np.put_along_axis(logits, experts, 1.0, axis=1)
        return self.torch.from_numpy(x).bfloat16()[None], self.torch.from_numpy(logits).bfloat16()

    def run(self, layer, prepared):
        x, layer.router.layer.logits = prepared
        with self.torch.inference_mode():
            return layer(x).float().numpy()


def told_router(torch):
    """A router's matrix that gives the logits it was told."""

    class Told(torch.nn.Module):
        def forward(self, _):
            return self.logits

    return Told()


def layer(number):
    """The layer as an ONNX file: per expert a gather and the products, then one scatter; random 4-bit weights."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(number)
    nodes, initializers = [], []

    def constant(name, value):
        initializers.append(numpy_helper.from_array(value, name))
        return name

    def node(operator, inputs, name, outputs=1, **attributes):
        names = [name] if outputs == 1 else [f"{name}.{index}" for index in range(outputs)]
        nodes.append(helper.make_node(operator, inputs, names, name, **attributes))
        return names[0] if outputs == 1 else names

    def product(rows, name, inputs, outputs):
        codes = random.integers(0, 256, inputs * outputs // 2, np.uint8).tobytes()
        shape = (inputs, outputs)
        initializers.append(helper.make_tensor(f"{name}.codes", TensorProto.INT4, shape, codes, raw=True))
        scales = constant(f"{name}.scales", np.full((inputs // GROUP, outputs), 0.01, np.float32))
        weight = node("DequantizeLinear", [f"{name}.codes", scales], f"{name}.weight", axis=0, block_size=GROUP)
        return node("MatMul", [rows, weight], name)

    axis = {index: constant(f"axis.{index}", np.array([index])) for index in range(3)}
    flat = node("Reshape", ["experts", constant("flat.shape", np.array([-1]))], "flat")
    per_token = constant("per_token", np.array(PER_TOKEN))
    slots, products = [], []
    for expert in range(EXPERTS):
        name = f"expert.{expert}"
        mine = node("Equal", [flat, constant(f"{name}.number", np.array(expert))], f"{name}.equal")
        mine = node("Squeeze", [node("NonZero", [mine], f"{name}.nonzero"), axis[0]], f"{name}.slots")
        slots.append(mine)
        rows = node("Gather", ["x", node("Div", [mine, per_token], f"{name}.tokens")], f"{name}.rows", axis=0)
        both = product(rows, f"{name}.gate_and_up", HIDDEN, 2 * INTERMEDIATE)
        halves = constant(f"{name}.halves", np.array([INTERMEDIATE] * 2))
        gate, up = node("Split", [both, halves], f"{name}.split", outputs=2, axis=-1)
        silu = node("Mul", [gate, node("Sigmoid", [gate], f"{name}.sigmoid")], f"{name}.silu")
        products.append(product(node("Mul", [silu, up], f"{name}.gated"), f"{name}.down", INTERMEDIATE, HIDDEN))
    every = node("Concat", products, "products", axis=0)
    places = node("Unsqueeze", [node("Concat", slots, "slots", axis=0), axis[1]], "places")
    width = constant("width", np.array([HIDDEN]))
    shape = node("Concat", [node("Shape", [flat], "flat.size"), width], "scattered.shape", axis=0)
    scattered = node("ScatterND", [node("ConstantOfShape", [shape], "zeros"), places, every], "scattered")
    split = constant("by_token.shape", np.array([-1, PER_TOKEN, HIDDEN]))
    by_token = node("Reshape", [scattered, split], "by_token")
    gated = node("Mul", [by_token, node("Unsqueeze", ["gates", axis[2]], "gates.column")], "gated")
    node("ReduceSum", [gated, axis[1]], "y", keepdims=0)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "layer",
        [
            value("x", TensorProto.FLOAT, ["tokens", HIDDEN]),
            value("experts", TensorProto.INT64, ["tokens", PER_TOKEN]),
            value("gates", TensorProto.FLOAT, ["tokens", PER_TOKEN]),
        ],
        [value("y", TensorProto.FLOAT, ["tokens", HIDDEN])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return model.SerializeToString()


def choices(tokens):
    """The experts of each token, [tokens, 2], the same in every round and for everybody."""
    state, chosen = 0x9E37_79B9_7F4A_7C15, []

    def below(limit):
        nonlocal state
        state ^= (state << 13) & 0xFFFF_FFFF_FFFF_FFFF
        state ^= state >> 7
        state ^= (state << 17) & 0xFFFF_FFFF_FFFF_FFFF
        return state % limit

    for _ in range(tokens):
        first = below(EXPERTS)
        chosen.append((first, (first + 1 + below(EXPERTS - 1)) % EXPERTS))
    return np.array(chosen, np.int64)


def version(package):
    return importlib.metadata.version(package)


def measure(model, tokens, arguments):
    experts = choices(tokens)
    x = np.random.default_rng(1).random((tokens, HIDDEN), np.float32) - 0.5
    prepared = model.prepare(x, experts)
    # a few layers are enough where each takes long
    layers = model.layers[: 2 if tokens > 64 else None]
    times = []
    # the first round only warms up
    for _ in range(arguments.repetitions + 1):
        begun = time.perf_counter()
        for layer in layers:
            y = model.run(layer, prepared)
        times.append((time.perf_counter() - begun) / len(layers))
        if not np.isfinite(y).all():
            sys.exit(f"{arguments.baseline} computed results with NaN")
    return {
        "tokens": tokens,
        "milliseconds": 1e3 * statistics.median(times[1:]),
        "operations": 2 * tokens * PER_TOKEN * WEIGHTS,
        "weight_bytes": int(len(np.unique(experts)) * WEIGHTS * model.bytes_per_weight),
        "runtime": model.runtime,
    }


def runs(model, arguments):
    return [measure(model, tokens, arguments) for tokens in arguments.tokens]


def all_runs(arguments):
    match arguments.baseline:
        case "onnxruntime":
            return runs(OnnxRuntime(arguments), arguments)
        case "transformers-bf16":
            return runs(Transformers(arguments), arguments)
    # OpenVINO computes in another precision than the one asked for where the processor lacks it
    by_precision = {}
    for asked in ["f32", "bf16", "f16"]:
        model = OpenVino(arguments, asked)
        if model.precision not in by_precision:
            by_precision[model.precision] = runs(model, arguments)
        # before the next is loaded, as memory has to hold one of them only
        del model
    every = zip(*by_precision.values(), strict=True)
    return [min(of_tokens, key=lambda run: run["milliseconds"]) for of_tokens in every]


def counts(text):
    return [int(count) for count in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baseline", choices=BASELINES, required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--tokens", type=counts, default=[1, 16, 128, 512], metavar="N,...")
    arguments = parser.parse_args()
    print(json.dumps({"runs": all_runs(arguments)}))


if __name__ == "__main__":
    main()
