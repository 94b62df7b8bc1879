"""Whether every expert works on the rows of the tokens that chose it, and on no others."""

import collections
import dataclasses
import pathlib
import re

import numpy
import onnx
import onnxruntime

from golden import Arrays, Case
from rules import nodes_of

WEIGHT = re.compile(r"model\.layers\.(\d+)\.(self_attention\.experts|mlp)\.(input|output)_linear\.weight\.(\d+)\.T")
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


def problems(path: pathlib.Path, case: Case, experts_per_token: int) -> list[str]:
    """Counts the rows of every product with an expert's matrix, by golden router logits and by what the graph does."""
    model = onnx.load(path)
    operands, found = operands_of(model)
    outputs = {value.name for value in model.graph.output}
    for name in sorted(set(operands.values()) - outputs):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    batch, length = case.golden["input_ids"].shape
    everything = slice(0, batch), slice(0, length)
    # the first token of a sequence without padding, which leaves most experts without work
    sequence = int(case.golden["attention_mask"].all(1).argmax())
    one_token = slice(sequence, sequence + 1), slice(0, 1)
    for what, (sequences, tokens) in [("the batch", everything), ("one token", one_token)]:
        results = session.run(list(operands.values()), case.inputs(sequences, tokens))
        rows = {product: len(result) for product, result in zip(operands, results)}
        numbers = numpy.arange(batch * length).reshape(batch, length)[sequences, tokens].ravel()
        expected = expected_rows(case.golden, experts_per_token, numbers)
        found += [f"{what}: {problem}" for problem in differences(rows, expected)]
    return found


def operands_of(model: onnx.ModelProto) -> tuple[dict[Product, str], list[str]]:
    """The value that each expert's matrix is multiplied with, and what else is done with such a matrix."""
    operands, found = {}, []
    for node in nodes_of(model.graph):
        for place, name in enumerate(node.input):
            if match := WEIGHT.fullmatch(name):
                layer, mixture, part, expert = match.groups()
                product = Product(int(layer), mixture, part, int(expert))
                if node.op_type != "MatMul" or place != 1:
                    found.append(f"{name} is an operand of {node.op_type} {node.name}")
                elif product in operands:
                    found.append(f"{product} is computed twice")
                else:
                    operands[product] = node.input[0]
    return operands, found


def expected_rows(golden: Arrays, experts_per_token: int, tokens: numpy.ndarray) -> dict[Product, int]:
    """How many of some tokens of the golden batch, given by number, chose each expert."""
    rows = {}
    layers = sum(name.endswith(".output") for name in golden)
    for layer in range(layers):
        for mixture, router in ROUTERS.items():
            logits = golden[f"layer.{layer}.{router}"][tokens]  # [tokens, experts]
            chosen = numpy.argsort(-logits, axis=1, kind="stable")[:, :experts_per_token]
            counts = collections.Counter(chosen.ravel().tolist())
            for expert in range(logits.shape[1]):
                for part in ("input", "output"):
                    rows[Product(layer, mixture, part, expert)] = counts[expert]
    return rows


def differences(found: dict[Product, int], expected: dict[Product, int]) -> list[str]:
    return [
        f"{product} has {found.get(product, 'no')} rows, {expected.get(product, 0)} tokens chose it"
        for product in sorted(found.keys() | expected.keys())
        if found.get(product) != expected.get(product)
    ]
