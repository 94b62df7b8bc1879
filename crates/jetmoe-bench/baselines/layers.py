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

BASELINES = ["onnxruntime", "onnxruntime-qmoe", "openvino", "transformers-bf16"]
HIDDEN, INTERMEDIATE, EXPERTS, PER_TOKEN, GROUP = 2048, 5632, 8, 2, 32
WEIGHTS = 3 * HIDDEN * INTERMEDIATE
# products of one row at a time take so long for more tokens that they are not measured
FEW_TOKENS = 16


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
        self.layers = [self.load(number) for number in range(arguments.layers)]
        self.runtime = f"onnxruntime {version('onnxruntime')}, 4-bit, activations in 8 bits"

    def load(self, number):
        return self.session(layer(number))

    def session(self, model):
        return self.ort.InferenceSession(model, self.options, providers=["CPUExecutionProvider"])

    def prepare(self, x, experts):
        return {"x": x, "experts": experts, "gates": np.full(experts.shape, 0.5, np.float32)}

    def run(self, layer, prepared):
        return layer.run(None, prepared)[0]


class OnnxRuntimeQmoe(OnnxRuntime):
    """The layer as one operator of ONNX Runtime, `QMoE`, which also routes.

    `accuracy_level` 4 allows activations in 8 bits, and the kernels of `MatMulNBits`. The environment variable
    ORT_QMOE_CPU_QNBIT_GEMM overrides it; 0 selects the kernel of before, which dequantizes the weights in every call.
    """

    def __init__(self, arguments):
        super().__init__(arguments)
        self.runtime = f"onnxruntime {version('onnxruntime')}, QMoE, 4-bit, activations in 8 bits"

    def load(self, number):
        return self.session(qmoe_layer(number))

    def prepare(self, x, experts):
        return {"x": x, "logits": logits_of(experts)}


class OpenVino:
    """OpenVINO with one of two graphs: the same file, or one that OpenVINO computes with its operator `GatherMatmul`."""

    bytes_per_weight = OnnxRuntime.bytes_per_weight

    def __init__(self, arguments, precision, graph):
        import openvino

        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": arguments.threads, "INFERENCE_PRECISION_HINT": precision}
        read = {"experts": lambda number: core.read_model(layer(number), b""), "tiled": tiled_layer}[graph]
        compiled = [core.compile_model(read(number), "CPU", settings) for number in range(arguments.layers)]
        if graph == "tiled" and "GatherMatmul" not in layer_types(compiled[0]):
            sys.exit("OpenVINO does not recognize the tiled graph")
        self.precision = compiled[0].get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.layers = [model.create_infer_request() for model in compiled]
        self.tiled = graph == "tiled"
        self.runtime = f"openvino {version('openvino')}, 4-bit, the fastest of its graphs and precisions"
        self.variant = f"{graph}, {self.precision}"

    def prepare(self, x, experts):
        return [x[None] if self.tiled else x, experts, np.full(experts.shape, 0.5, np.float32)]

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
        logits = self.torch.from_numpy(logits_of(experts)).bfloat16()
        return self.torch.from_numpy(x).bfloat16()[None], logits

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


def qmoe_layer(number):
    """The layer as an ONNX file with the operator `QMoE`: rows of gate and up in turn, codes with an offset of 8."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(number)
    initializers = []

    def weight(name, outputs, inputs):
        codes = random.integers(0, 256, (EXPERTS, outputs, inputs // 2), np.uint8)
        scales = np.full((EXPERTS, outputs, inputs // GROUP), 0.01, np.float32)
        initializers.extend([numpy_helper.from_array(codes, name), numpy_helper.from_array(scales, f"{name}.scales")])
        return [name, f"{name}.scales"]

    gate_and_up, down = weight("gate_and_up", 2 * INTERMEDIATE, HIDDEN), weight("down", HIDDEN, INTERMEDIATE)
    qmoe = helper.make_node(
        "QMoE",
        ["x", "logits", *gate_and_up, "", *down],
        ["y"],
        domain="com.microsoft",
        k=PER_TOKEN,
        normalize_routing_weights=1,
        activation_type="swiglu",
        swiglu_fusion=1,
        activation_alpha=1.0,
        activation_beta=0.0,
        expert_weight_bits=4,
        block_size=GROUP,
        weights_prepacked=0,
        accuracy_level=4,
    )
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [qmoe],
        "layer",
        [
            value("x", TensorProto.FLOAT, ["tokens", HIDDEN]),
            value("logits", TensorProto.FLOAT, ["tokens", EXPERTS]),
        ],
        [value("y", TensorProto.FLOAT, ["tokens", HIDDEN])],
        initializers,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def tiled_layer(number):
    """The layer as OpenVINO's own exporter writes it: every token with every expert, of which OpenVINO computes the chosen."""
    import openvino
    import openvino.opset13 as op

    random = np.random.default_rng(number)

    def constant(*values):
        return op.constant(np.array(values, np.int64))

    def weight(outputs, inputs):
        codes = random.integers(0, 256, EXPERTS * outputs * inputs // 2, np.uint8)
        groups = [EXPERTS, outputs, inputs // GROUP, GROUP]
        codes = openvino.op.Constant(openvino.Tensor(codes, groups, openvino.Type.u4), shared_memory=False)
        codes = op.subtract(op.convert(codes, "f16"), op.constant(np.array([8], np.float16)))
        weights = op.multiply(codes, op.constant(np.full([*groups[:3], 1], 0.01, np.float16)))
        return op.convert(op.reshape(weights, constant(EXPERTS, outputs, inputs), False), "f32")

    x = op.parameter([1, -1, HIDDEN], np.float32, "x")
    experts = op.parameter([-1, PER_TOKEN], np.int64, "experts")
    gates = op.parameter([-1, PER_TOKEN], np.float32, "gates")
    tokens = op.gather(op.shape_of(experts), constant(0), op.constant(0))
    tiles = op.tile(op.reshape(x, constant(-1, HIDDEN), False), constant(EXPERTS, 1))
    tiles = op.reshape(tiles, constant(EXPERTS, -1, HIDDEN), False)
    gate = op.matmul(tiles, weight(INTERMEDIATE, HIDDEN), False, True)
    up = op.matmul(tiles, weight(INTERMEDIATE, HIDDEN), False, True)
    # not op.swish, whose second input the pattern lacks
    silu = op.multiply(gate, op.sigmoid(gate))
    down = op.matmul(op.multiply(silu, up), weight(HIDDEN, INTERMEDIATE), False, True)
    down = op.reshape(down, op.concat([constant(EXPERTS, 1), tokens, constant(HIDDEN)], 0), False)
    zeros = op.broadcast(op.constant(np.float32(0)), op.concat([tokens, constant(EXPERTS)], 0))
    all_gates = op.transpose(op.scatter_elements_update(zeros, experts, gates, op.constant(1)), constant(1, 0))
    all_gates = op.reshape(all_gates, op.concat([constant(EXPERTS, 1), tokens], 0), False)
    gated = op.multiply(down, op.unsqueeze(all_gates, op.constant(3)))
    return openvino.Model([op.reduce_sum(gated, constant(0), False)], [x, experts, gates], "layer")


def layer_types(compiled):
    """The kinds of operators that OpenVINO executes."""
    return {str(node.get_rt_info()["layerType"].value) for node in compiled.get_runtime_model().get_ops()}


def logits_of(experts):
    """Logits of a router that chooses these experts, with equal weights."""
    logits = np.zeros((len(experts), EXPERTS), np.float32)
    np.put_along_axis(logits, experts, 1.0, axis=1)
    return logits


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
        "variant": getattr(model, "variant", None),
    }


def runs(model, arguments):
    return [measure(model, tokens, arguments) for tokens in arguments.tokens]


def all_runs(arguments):
    match arguments.baseline:
        case "onnxruntime":
            return runs(OnnxRuntime(arguments), arguments)
        case "onnxruntime-qmoe":
            return runs(OnnxRuntimeQmoe(arguments), arguments)
        case "transformers-bf16":
            return runs(Transformers(arguments), arguments)
    return openvino_runs(arguments)


def openvino_runs(arguments):
    """For each number of tokens, the fastest of OpenVINO's precisions and graphs that it compiles."""
    measured, refused = [], []
    for graph in ["experts", "tiled"]:
        tokens = [count for count in arguments.tokens if graph == "experts" or count <= FEW_TOKENS]
        for precision in openvino_precisions():
            try:
                model = OpenVino(arguments, precision, graph)
            except RuntimeError as error:
                # the tiled graph in float16 on a processor with AMX
                if "No suitable implementations found" not in str(error):
                    raise
                refused.append(f"{graph}, {precision}")
                continue
            measured += [measure(model, count, arguments) for count in tokens]
            # before the next is loaded, as memory has to hold one of them only
            del model
    of_tokens = ([run for run in measured if run["tokens"] == count] for count in arguments.tokens)
    return [min(same, key=lambda run: run["milliseconds"]) | {"refused": refused} for same in of_tokens]


def openvino_precisions():
    """The precisions that OpenVINO computes in: another one than the one asked for where the processor lacks it."""
    import openvino
    import openvino.opset13 as op

    x = op.parameter([1], np.float32)
    model = openvino.Model([op.relu(x)], [x], "smallest")
    found = []
    for asked in ["f32", "bf16", "f16"]:
        compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": asked})
        found.append(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
    return list(dict.fromkeys(found))


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
