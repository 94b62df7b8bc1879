"""Names, order, element types and shapes of a graph's inputs and outputs, which other clients rely on."""

import dataclasses

import onnx

from rules import shape_of

BATCH, NEW, PAST = "batch_size", "sequence_length", "past_sequence_length"
TOTAL = f"{PAST} + {NEW}"
INT64, FLOAT = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT

Value = tuple[str, int, list[int | str] | None]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of a model, from either layout of config.json."""

    layers: int
    hidden: int
    vocabulary: int
    experts: int
    experts_per_token: int
    heads: int
    head_width: int
    labels: int

    @staticmethod
    def of(config: dict) -> "Sizes":
        experts = ("num_local_experts", "num_experts_per_tok")
        if experts[0] not in config:
            experts = ("moe_num_experts", "moe_top_k")
        return Sizes(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            vocabulary=config["vocab_size"],
            experts=config[experts[0]],
            experts_per_token=config[experts[1]],
            heads=config["num_key_value_heads"],
            head_width=config["kv_channels"],
            labels=len(config.get("id2label", {"0": "", "1": ""})),
        )


def has_cache(task: str) -> bool:
    return task != "sequence-classification"


def expected(
    task: str, outputs: set[str], sizes: Sizes, activations: int = FLOAT, is_portable: bool = True
) -> tuple[list[Value], list[Value]]:
    """The inputs and outputs of a graph, in order. `activations` is the element type of the cache."""
    layers = range(sizes.layers)
    tokens = [BATCH, NEW]
    inputs: list[Value] = [
        ("input_ids", INT64, tokens),
        ("attention_mask", INT64, [BATCH, TOTAL if has_cache(task) else NEW]),
        ("position_ids", INT64, tokens),
    ]
    results: list[Value] = [
        {
            "causal-lm": ("logits", FLOAT, [BATCH, NEW if is_portable else "logits_length", sizes.vocabulary]),
            "backbone": ("last_hidden_state", FLOAT, [*tokens, sizes.hidden]),
            "sequence-classification": ("logits", FLOAT, [BATCH, sizes.labels]),
        }[task]
    ]
    if has_cache(task):
        for layer in layers:
            for part in ("key", "value"):
                past = [BATCH, sizes.heads, PAST, sizes.head_width]
                present = [BATCH, sizes.heads, TOTAL, sizes.head_width]
                inputs.append((f"past_key_values.{layer}.{part}", activations, past))
                results.append((f"present.{layer}.{part}", activations, present))
    if task == "causal-lm" and not is_portable:
        inputs.append(("logits_to_keep", INT64, [1]))
    if "hidden-states" in outputs:
        results += [(f"hidden_states.{index}", FLOAT, [*tokens, sizes.hidden]) for index in range(sizes.layers + 1)]
    if "router-logits" in outputs:
        for family in ("attn_router_logits", "mlp_router_logits"):
            results += [(f"{family}.{layer}", FLOAT, [*tokens, sizes.experts]) for layer in layers]
    return inputs, results


def problems(
    model: onnx.ModelProto,
    task: str,
    outputs: set[str],
    sizes: Sizes,
    activations: int = FLOAT,
    is_portable: bool = True,
) -> list[str]:
    """Where the graph's inputs and outputs differ from the contract."""
    inputs, results = expected(task, outputs, sizes, activations, is_portable)
    defaults = {tensor.name for tensor in model.graph.initializer}
    lacking = [name for name, _, _ in inputs if name == "logits_to_keep" and name not in defaults]
    return [
        *(f"input {name} has no default" for name in lacking),
        *differences("input", inputs, model.graph.input),
        *differences("output", results, model.graph.output),
    ]


def differences(kind: str, wanted: list[Value], declared) -> list[str]:
    found = [described(value) for value in declared]
    if [name for name, _, _ in found] != [name for name, _, _ in wanted]:
        return [f"{kind}s are {[name for name, _, _ in found]}, not {[name for name, _, _ in wanted]}"]
    return [f"{kind} {is_[0]} is {is_[1:]}, not {want[1:]}" for is_, want in zip(found, wanted) if is_ != want]


def described(value: onnx.ValueInfoProto) -> Value:
    return value.name, value.type.tensor_type.elem_type, shape_of(value)
