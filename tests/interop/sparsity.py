"""Whether every expert works on the rows of the tokens that chose it, and on no others."""

import collections
import dataclasses
import pathlib
import re

import numpy
import onnx
import telemetry  # noqa: F401
import onnxruntime

from golden import Case
from rules import nodes_of

# One expert's matrix, or its codes. Where it is one for onnxruntime's own operator, it is not turned round.
WEIGHT = re.compile(
    r"model\.layers\.(\d+)\.(self_attention\.experts|mlp)\.(input|output)_linear\.weight\.(\d+)(\.T)?(\.codes)?"
)
# Operators that make a matrix of what is stored.
RESTORING = ("Cast", "DequantizeLinear")
PRODUCTS = ("MatMul", "MatMulNBits")
# The router of each mixture, by the name that its logits have in a golden file.
ROUTERS = {"self_attention.experts": "attn_router_logits", "mlp": "mlp_router_logits"}


@dataclasses.dataclass(frozen=True, order=True)
class Product:
    """The product with one of the two matrices of an expert."""

    layer: int
    mixture: str
    part: str
    expert: int

    def __str__(self) -> str:
        return f"the {self.part} product of expert {self.expert} in layer {self.layer}'s {self.mixture}"


def problems(
    path: pathlib.Path,
    case: Case,
    experts_per_token: int,
    activations: int = onnx.TensorProto.FLOAT,
    has_golden_routes: bool = True,
) -> list[str]:
    """Counts the rows of every product with an expert's matrix, by router logits and by what the graph does.

    The logits are golden ones, or with another precision, in which some tokens choose otherwise, the graph's own; then
    it must have them as outputs. `activations` is the element type of what is multiplied.
    """
    model = onnx.load(path)
    operands, found = operands_of(model)
    outputs = {value.name for value in model.graph.output}
    for name in sorted(set(operands.values()) - outputs):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, activations, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    batch, length = case.golden["input_ids"].shape
    everything = slice(0, batch), slice(0, length)
    # the first token of a sequence without padding, which leaves most experts without work
    sequence = int(case.golden["attention_mask"].all(1).argmax())
    one_token = slice(sequence, sequence + 1), slice(0, 1)
    layers = range(sum(name.endswith(".output") for name in case.golden))
    routers = {(layer, mixture): router for layer in layers for mixture, router in ROUTERS.items()}
    for what, (sequences, tokens) in [("the batch", everything), ("one token", one_token)]:
        feeds = case.inputs(sequences, tokens)
        results = session.run(list(operands.values()), feeds)
        rows = {product: len(result) for product, result in zip(operands, results)}
        if has_golden_routes:
            numbers = numpy.arange(batch * length).reshape(batch, length)[sequences, tokens].ravel()
            logits = {key: case.golden[f"layer.{key[0]}.{router}"][numbers] for key, router in routers.items()}
        else:
            own = session.run([f"{router}.{layer}" for (layer, _), router in routers.items()], feeds)
            logits = {key: output.reshape(-1, output.shape[-1]) for key, output in zip(routers, own)}
        expected = expected_rows(logits, experts_per_token)
        found += [f"{what}: {problem}" for problem in differences(rows, expected)]
    return found


def operands_of(model: onnx.ModelProto) -> tuple[dict[Product, str], list[str]]:
    """The value that each expert's matrix is multiplied with, and what else is done with such a matrix."""
    operands, found = {}, []
    matrices = {}
    for node in nodes_of(model.graph):
        for place, name in enumerate(node.input):
            if match := WEIGHT.fullmatch(name):
                layer, mixture, part, expert = match.groups()[:4]
                product = Product(int(layer), mixture, part, int(expert))
            elif not (product := matrices.get(name)):
                continue
            if node.op_type in RESTORING and place == 0:
                matrices[node.output[0]] = product
            elif node.op_type not in PRODUCTS or place != 1:
                found.append(f"{name} is an operand of {node.op_type} {node.name}")
            elif product in operands:
                found.append(f"{product} is computed twice")
            else:
                operands[product] = node.input[0]
    return operands, found


def expected_rows(logits: dict[tuple[int, str], numpy.ndarray], experts_per_token: int) -> dict[Product, int]:
    """How many tokens chose each expert, by the logits `[tokens, experts]` of each layer's mixtures."""
    rows = {}
    for (layer, mixture), of_tokens in logits.items():
        chosen = numpy.argsort(-of_tokens, axis=1, kind="stable")[:, :experts_per_token]
        counts = collections.Counter(chosen.ravel().tolist())
        for expert in range(of_tokens.shape[1]):
            for part in ("input", "output"):
                rows[Product(layer, mixture, part, expert)] = counts[expert]
    return rows


def differences(found: dict[Product, int], expected: dict[Product, int]) -> list[str]:
    return [
        f"{product} has {found.get(product, 'no')} rows, {expected.get(product, 0)} tokens chose it"
        for product in sorted(found.keys() | expected.keys())
        if found.get(product) != expected.get(product)
    ]
