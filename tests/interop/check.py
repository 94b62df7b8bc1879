"""Check exported graphs with the packages onnx and onnxruntime. `cargo xtask interop` calls it.

usage: check.py --expect COUNT EXPORTS FIXTURES...

EXPORTS holds one artifact per folder CASE/TASK/OUTPUTS/OPSET, where OUTPUTS is `plain` or names joined by `+`, and OPSET
is a number or `default`. A folder CASE with the checkpoint's config.json and golden.safetensors lies in one of FIXTURES.
"""

import argparse
import collections
import dataclasses
import json
import pathlib
import sys

import numpy
import onnx
import onnxruntime
from safetensors.numpy import load_file

import contract
import golden
import rules
import sparsity
import validity

FAMILIES = ("logits", "hidden", "router", "cache")


@dataclasses.dataclass(frozen=True)
class Export:
    """An artifact and what may be expected of it."""

    case: str
    task: str
    outputs: str
    opset: str
    graph: pathlib.Path
    fixture: pathlib.Path

    @staticmethod
    def at(graph: pathlib.Path, fixtures: list[pathlib.Path]) -> "Export":
        case, task, outputs, opset = graph.parts[-6:-2]
        fixture = next(folder / case for folder in fixtures if (folder / case).is_dir())
        return Export(case, task, outputs, opset, graph, fixture)

    def optional_outputs(self) -> set[str]:
        return set() if self.outputs == "plain" else set(self.outputs.split("+"))

    def requested_opset(self) -> int | None:
        return None if self.opset == "default" else int(self.opset)


def check(export: Export) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Problems per kind of check, and errors per family of tensors as a share of their tolerance."""
    config = json.loads((export.fixture / "config.json").read_text())
    sizes = contract.Sizes.of(config)
    model = onnx.load(export.graph, load_external_data=False)
    found = {
        "valid": validity.problems(export.graph),
        "rules": rules.problems(model, export.graph, export.requested_opset()),
        "contract": contract.problems(model, export.task, export.optional_outputs(), sizes),
    }
    case = golden_case(export, config, sizes)
    try:
        comparison = compare(export, case)
        sparsity_problems = sparsity.problems(export.graph, case, sizes.experts_per_token)
    except Exception as error:  # onnxruntime has no common class for its errors
        comparison = golden.Comparison(problems=[f"{type(error).__name__}: {error}"])
        sparsity_problems = ["it could not be run"]
    return found | {"numbers": comparison.problems, "sparsity": sparsity_problems}, comparison.errors


def compare(export: Export, case: golden.Case) -> golden.Comparison:
    session = onnxruntime.InferenceSession(export.graph, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return case.check(lambda feeds: dict(zip(names, session.run(names, feeds))))


def golden_case(export: Export, config: dict, sizes: contract.Sizes) -> golden.Case:
    inputs, _ = contract.expected(export.task, export.optional_outputs(), sizes)
    nothing = numpy.zeros((1, sizes.heads, 0, sizes.head_width), numpy.float32)
    end_token, padding = config["eos_token_id"], config.get("pad_token_id")
    return golden.Case(
        golden=load_file(export.fixture / "golden.safetensors"),
        task=export.task,
        empty_cache={name: nothing for name, _, _ in inputs if name.startswith("past_key_values.")},
        end_token=end_token,
        filler=end_token if padding is None else padding,
    )


def table_row(cells: list[str]) -> str:
    case, task, outputs, opset, *rest = cells
    return f"{case:<23}{task:<25}{outputs:<29}{opset:<9}" + "".join(f"{cell:>10}" for cell in rest)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expect", type=int, required=True, metavar="COUNT", help="how many artifacts there must be")
    parser.add_argument("exports", type=pathlib.Path)
    parser.add_argument("fixtures", type=pathlib.Path, nargs="+")
    arguments = parser.parse_args()

    graphs = sorted(arguments.exports.glob("*/*/*/*/onnx/*.onnx"))
    if len(graphs) != arguments.expect:
        print(f"{len(graphs)} graphs in {arguments.exports}, not {arguments.expect}")
        return 1
    print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}; errors as a share of their tolerance")
    print(table_row(["case", "task", "outputs", "opset", "valid", "rules", "contract", "numbers", "sparsity", *FAMILIES]))
    counts, details = collections.Counter(), []
    for graph in graphs:
        export = Export.at(graph, arguments.fixtures)
        found, errors = check(export)
        verdicts = ["FAILED" if problems else "ok" for problems in found.values()]
        shares = [f"{errors[family]:.2f}" if family in errors else "" for family in FAMILIES]
        print(table_row([export.case, export.task, export.outputs, export.opset, *verdicts, *shares]), flush=True)
        counts.update(verdicts)
        details += [f"{graph}: {kind}: {problem}" for kind, problems in found.items() for problem in problems]
    for detail in details:
        print(detail)
    print(f"{counts['ok']} passed, {counts['FAILED']} failed")
    return 1 if counts["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
