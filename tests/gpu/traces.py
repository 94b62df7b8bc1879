"""Reads a trace of ONNX Runtime: what one decode step consists of."""

import collections
import dataclasses
import json

COPIES = {"MemcpyToHost": "to_host", "MemcpyFromHost": "from_host"}
# Elements that a trace names, in bytes.
ELEMENT_BYTES = {"float": 4, "float16": 2, "bfloat16": 2, "double": 8, "int64": 8, "int32": 4, "int8": 1, "uint8": 1, "bool": 1}
NODE_SUFFIX = "_kernel_time"


@dataclasses.dataclass
class Step:
    """One call of the graph. Times are the host's, in microseconds: a kernel of a GPU is only started in them, unless its result
    is needed on the host.
    """

    microseconds: int
    nodes: int = 0
    on_cpu: int = 0
    by_operator: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    copies: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    copied_bytes: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def share(self, operator):
        """Share of an operator in the time of the step."""
        return self.by_operator[operator] / self.microseconds if self.microseconds else 0.0


def read(path):
    with open(path) as file:
        content = json.load(file)
    return content["traceEvents"] if isinstance(content, dict) else content


def decode_step(events):
    """The median of the decode steps in a trace of one generation, whose first call is the prompt; None without one."""
    calls = sorted((e for e in events if e["name"] == "model_run"), key=lambda e: e["ts"])[1:]
    if not calls:
        return None
    call = sorted(calls, key=lambda e: e["dur"])[len(calls) // 2]
    step = Step(call["dur"])
    for event in events:
        is_node = event.get("cat") == "Node" and event["name"].endswith(NODE_SUFFIX)
        if not is_node or not call["ts"] <= event["ts"] < call["ts"] + call["dur"]:
            continue
        arguments = event.get("args", {})
        operator = arguments.get("op_name", "?")
        step.nodes += 1
        step.on_cpu += arguments.get("provider") == "CPUExecutionProvider"
        step.by_operator[operator] += event["dur"]
        if operator in COPIES:
            step.copies[COPIES[operator]] += 1
            step.copied_bytes[COPIES[operator]] += output_bytes(arguments)
    return step


def output_bytes(arguments):
    """Bytes that a node returned, by its shapes."""
    total = 0
    for value in arguments.get("output_type_shape", []):
        for element, shape in value.items():
            size = ELEMENT_BYTES.get(element, 0)
            for dimension in shape:
                size *= dimension
            total += size
    return total


def table(step, most=25):
    """The operators that take most, as text."""
    lines = [f"{step.microseconds / 1000:10.3f} ms  one decode step, {step.nodes} nodes"]
    lines += [f"{time / 1000:10.3f} ms  {operator}" for operator, time in step.by_operator.most_common(most)]
    return "\n".join(lines) + "\n"
