"""Check exported graphs with the packages onnx and onnxruntime. `cargo xtask interop` calls it.

usage: check.py --expect COUNT EXPORTS FIXTURES...

EXPORTS holds one artifact per folder CASE/TASK/OUTPUTS/OPSET/STORAGE, where OUTPUTS is `plain` or names joined by `+`,
OPSET a number or `default`, and STORAGE what `storage.py` reads. A folder CASE with the checkpoint's config.json and
golden.safetensors lies in one of FIXTURES.
"""

import argparse
import collections
import dataclasses
import json
import pathlib
import sys

import numpy
import onnx
import telemetry  # noqa: F401
import onnxruntime
from safetensors.numpy import load_file

import contract
import golden
import precision
import rules
import sparsity
import validity
from storage import Storage

KINDS = ("valid", "rules", "contract", "numbers", "sparsity")
FAMILIES = ("logits", "hidden", "router", "cache")


@dataclasses.dataclass(frozen=True)
class Export:
    """An artifact and what may be expected of it."""

    case: str
    task: str
    outputs: str
    opset: str
    storage: Storage
    folder: pathlib.Path
    fixture: pathlib.Path

    @staticmethod
    def at(folder: pathlib.Path, fixtures: list[pathlib.Path]) -> "Export":
        case, task, outputs, opset, storage = folder.parts[-5:]
        fixture = next(folder / case for folder in fixtures if (folder / case).is_dir())
        return Export(case, task, outputs, opset, Storage.named(storage), folder, fixture)

    @property
    def graph(self) -> pathlib.Path:
        """The one graph of the artifact."""
        (graph,) = self.folder.glob("onnx/**/*.onnx")
        return graph

    def in_portable_profile(self) -> "Export":
        """The export of the same weights that uses standard operators only."""
        storage = self.storage.in_portable_profile()
        return dataclasses.replace(self, storage=storage, folder=self.folder.with_name(str(storage)))

    def optional_outputs(self) -> set[str]:
        return set() if self.outputs == "plain" else set(self.outputs.split("+"))

    def requested_opset(self) -> int | None:
        return None if self.opset == "default" else int(self.opset)


def check(export: Export) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Problems per kind of check, and errors per family of tensors as a share of their tolerance."""
    config = json.loads((export.fixture / "config.json").read_text())
    sizes = contract.Sizes.of(config)
    model = onnx.load(export.graph, load_external_data=False)
    storage = export.storage
    outputs, activations = export.optional_outputs(), storage.activations()
    found = {
        "valid": validity.problems(export.graph, storage.is_portable()),
        "rules": rules.problems(model, export.graph, export.requested_opset(), storage.foreign_operators()),
        "contract": contract.problems(
            model, export.task, outputs, sizes, activations, storage.is_portable()
        ),
    }
    case = golden_case(export, config, sizes)
    try:
        is_golden = storage == Storage("f32")
        if is_golden:
            comparison = compare(export, case)
        else:
            portable = export.in_portable_profile().graph
            comparison = precision.check(export.graph, portable, storage, case, sizes.experts_per_token)
        experts = sizes.experts_per_token
        sparsity_problems = sparsity.problems(export.graph, case, experts, activations, is_golden)
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
    element = onnx.helper.tensor_dtype_to_np_dtype(export.storage.activations())
    nothing = numpy.zeros((1, sizes.heads, 0, sizes.head_width), element)
    end_token, padding = config["eos_token_id"], config.get("pad_token_id")
    return golden.Case(
        golden=load_file(export.fixture / "golden.safetensors"),
        task=export.task,
        empty_cache={name: nothing for name, _, _ in inputs if name.startswith("past_key_values.")},
        end_token=end_token,
        filler=end_token if padding is None else padding,
    )


def table_row(cells: list[str]) -> str:
    case, task, outputs, opset, storage, *rest = cells
    return f"{case:<23}{task:<25}{outputs:<29}{opset:<9}{storage:<28}" + "".join(f"{cell:>10}" for cell in rest)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expect", type=int, required=True, metavar="COUNT", help="how many artifacts there must be")
    parser.add_argument("exports", type=pathlib.Path)
    parser.add_argument("fixtures", type=pathlib.Path, nargs="+")
    arguments = parser.parse_args()

    folders = sorted(manifest.parent for manifest in arguments.exports.glob("*/*/*/*/*/jetmoe.json"))
    if len(folders) != arguments.expect:
        print(f"{len(folders)} artifacts in {arguments.exports}, not {arguments.expect}")
        return 1
    print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}; errors as a share of their tolerance")
    print(table_row(["case", "task", "outputs", "opset", "storage", *KINDS, *FAMILIES]))
    counts, details = collections.Counter(), []
    for folder in folders:
        export = Export.at(folder, arguments.fixtures)
        found, errors = check(export)
        verdicts = {kind: "FAILED" if problems else "ok" for kind, problems in found.items()}
        shares = [f"{errors[family]:.2f}" if family in errors else "" for family in FAMILIES]
        what = [export.case, export.task, export.outputs, export.opset, str(export.storage)]
        print(table_row([*what, *(verdicts[kind] for kind in KINDS), *shares]), flush=True)
        counts.update(verdicts.values())
        details += [f"{folder}: {kind}: {problem}" for kind, problems in found.items() for problem in problems]
    for detail in details:
        print(detail)
    print(f"{counts['ok']} passed, {counts['FAILED']} failed")
    return 1 if counts["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
