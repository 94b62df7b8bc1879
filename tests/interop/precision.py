"""Whether a graph of reduced precision computes what its operators are defined to compute.

Golden values cannot tell, because they lie further away than a mistake might. So a portable graph is run twice: by
onnxruntime, and by the onnx package, which follows the definition of each operator in numpy. A graph with onnxruntime's
own operators is compared with the portable one of the same weights.
"""

import pathlib

import numpy
import onnx
import telemetry  # noqa: F401
import onnxruntime
from onnx.reference import ReferenceEvaluator

from golden import Arrays, Case, Comparison, Run, cache_of
from in_place import hiding_padding
from storage import Storage

# Arithmetic in float32, also where onnxruntime puts DequantizeLinear and MatMul together.
FLOAT32_PRODUCTS = 1
# float16 keeps 11 binary digits. numpy rounds after each addition of sums over up to 96 terms and onnxruntime once after
# the sum, so that they part by several units in the last place. This is 32 of the largest value of a tensor.
HALF_TOLERANCE = 2.0**-6
# In float16 the scores of two experts are sometimes one number, or the other way round, and a token goes another way:
# the least share of choices that must be the same, and of tokens that went the same way as far as they can see.
HALF_SAME_CHOICES = 0.95
HALF_SAME_TOKENS = 0.25
# onnxruntime's products round what they multiply with quantized weights to 8 bits, group by group. Half of the tokens
# must have logits within this share of the largest logit: two to four times what was measured. A wrong layout is off by
# half of it and more.
ROUNDED_MEDIAN = 0.08
ROUNDED_SAME_CHOICES = 0.9


class HalfComparison(Comparison):
    """A comparison of arithmetic in float16."""

    def tolerance(self, family: str, largest: float) -> float:
        return HALF_TOLERANCE * largest


def check(graph: pathlib.Path, portable: pathlib.Path, storage: Storage, case: Case, experts: int) -> Comparison:
    """Compares a graph with what it should compute; `portable` is the graph of the same weights in that profile, and
    `experts` how many a token uses."""
    if storage.is_portable():
        return compare(runtime(onnx.load(graph)), reference(onnx.load(graph)), storage, case, experts)
    wanted = runtime(onnx.load(portable))
    exact = runtime(with_float32_products(onnx.load(graph)))
    comparison = compare(hiding_padding(exact), wanted, storage, case, experts)
    if not storage.computes_in_half():
        compare_as_padded(comparison, exact, wanted, case)
    comparison.problems += rounded_problems(hiding_padding(runtime(onnx.load(graph))), wanted, case, experts)
    return comparison


def compare_as_padded(comparison: Comparison, found: Run, wanted: Run, case: Case) -> None:
    """Compares the golden batch with its padding in front, as transformers.js and optimum run it: the whole batch at once,
    and a few tokens after it, each graph with its own cache."""
    batch, length = case.golden["input_ids"].shape
    valid = case.golden["attention_mask"] == 1
    feeds = case.inputs(slice(0, batch), slice(0, length))
    is_, want = found(feeds), wanted(feeds)
    for name, outputs in want.items():
        family = case.wanted(name)[0]
        if family != "cache":  # which holds the tokens in other places
            comparison.compare(f"{name} of the padded batch", family, is_[name], outputs, valid)
    if case.task == "causal-lm":
        every = numpy.ones((batch, 1), bool)
        for index in range(3):
            chosen = want["logits"][:, -1:].argmax(-1)
            is_, want = found(case.step(is_, chosen, index)), wanted(case.step(want, chosen, index))
            what = f"logits of token {index + 1} after the padded batch"
            comparison.compare(what, "logits", is_["logits"], want["logits"], every)


def reference(model: onnx.ModelProto) -> Run:
    """The graph by the definitions of its operators."""
    evaluator = ReferenceEvaluator(model)
    return lambda feeds: dict(zip(evaluator.output_names, evaluator.run(None, feeds)))


def runtime(model: onnx.ModelProto) -> Run:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", str(FLOAT32_PRODUCTS))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds)))


def with_float32_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same weights, multiplied with what is not rounded to 8 bits before."""
    levels = [
        attribute
        for node in model.graph.node
        if node.op_type == "MatMulNBits"
        for attribute in node.attribute
        if attribute.name == "accuracy_level"
    ]
    for level in levels:
        level.i = FLOAT32_PRODUCTS
    return model


def compare(found: Run, wanted: Run, storage: Storage, case: Case, experts: int) -> Comparison:
    """Compares every output of the golden batch in two pieces, the second with the cache that `wanted` made of the
    first."""
    comparison = HalfComparison() if storage.computes_in_half() else Comparison()
    choices, tokens = [], []
    for what, feeds in pieces(wanted, case):
        is_, want = found(feeds), wanted(feeds)
        valid = feeds["attention_mask"] == 1
        new = slice(valid.shape[1] - feeds["input_ids"].shape[1], None)
        if storage.computes_in_half():
            same = same_choices(is_, want, experts)
            choices.append(same[valid[:, new]])
            # what a token computes depends on all before it
            same = numpy.logical_and.accumulate(same.all(-1) | ~valid[:, new], axis=1)
            tokens.append(same[valid[:, new]])
            valid[:, new] &= same
        for name, outputs in want.items():
            compare_output(comparison, f"{name} of {what}", case.wanted(name)[0], is_[name], outputs, valid, new)
    if storage.computes_in_half():
        comparison.problems += too_few("choices", choices, HALF_SAME_CHOICES)
        comparison.problems += too_few("tokens", tokens, HALF_SAME_TOKENS)
    return comparison


def compare_output(
    comparison: Comparison,
    what: str,
    family: str,
    found: numpy.ndarray,
    wanted: numpy.ndarray,
    valid: numpy.ndarray,
    new: slice,
) -> None:
    """Compares where `valid` `[batch, total]` is true; `new` are the positions that are not in the cache yet."""
    if family != "cache":
        valid = valid[:, new]
    if not valid.any():
        return  # that too few tokens went the same way is a problem of its own
    if found.dtype != wanted.dtype:
        comparison.problems.append(f"{what} is {found.dtype}, not {wanted.dtype}")
    elif family == "cache":
        # [batch, heads, total, width] with the masked dimensions in front
        comparison.compare(what, family, found.swapaxes(1, 2), wanted.swapaxes(1, 2), valid)
    else:
        comparison.compare(what, family, found, wanted, valid)


def pieces(wanted: Run, case: Case) -> list[tuple[str, Arrays]]:
    """Inputs for the two halves of the golden batch."""
    batch, length = case.golden["input_ids"].shape
    rows, middle = slice(0, batch), length // 2
    first = case.inputs(rows, slice(0, middle))
    second = case.inputs(rows, slice(middle, length), cache_of(wanted(first)))
    return [("the first piece", first), ("the second piece", second)]


def rounded_problems(found: Run, wanted: Run, case: Case, experts: int) -> list[str]:
    """Whether products with rounded operands are as near as such rounding lets them be."""
    errors, largest, choices = [], 0.0, []
    for what, feeds in pieces(wanted, case):
        is_, want = found(feeds), wanted(feeds)
        new = feeds["attention_mask"][:, -feeds["input_ids"].shape[1] :] == 1
        if unsound := [name for name, output in is_.items() if not numpy.isfinite(output).all()]:
            return [f"with rounded operands {unsound[0]} of {what} is not finite everywhere"]
        errors.append(numpy.abs(is_["logits"] - want["logits"]).max(-1)[new])
        largest = max(largest, float(numpy.abs(want["logits"][new]).max()))
        choices.append(same_choices(is_, want, experts)[new])
    median = float(numpy.median(numpy.concatenate(errors)))
    problems = too_few("choices with rounded operands", choices, ROUNDED_SAME_CHOICES)
    if median > ROUNDED_MEDIAN * largest:
        problems.append(f"with rounded operands logits are off by {median:.2f}, the largest is {largest:.2f}")
    return problems


def same_choices(found: Arrays, wanted: Arrays, experts: int) -> numpy.ndarray:
    """Whether each router chose the same experts for each token, `[batch, sequence, routers]`."""
    routers = [name for name in wanted if "router_logits" in name]
    return numpy.stack([(chosen(found[name], experts) == chosen(wanted[name], experts)).all(-1) for name in routers], -1)


def chosen(logits: numpy.ndarray, experts: int) -> numpy.ndarray:
    return numpy.sort(numpy.argsort(-logits, axis=-1, kind="stable")[..., :experts], -1)


def too_few(what: str, same: list[numpy.ndarray], least: float) -> list[str]:
    share = float(numpy.concatenate([part.ravel() for part in same]).mean())
    return [] if share >= least else [f"only {share:.0%} of the {what} are the same"]
