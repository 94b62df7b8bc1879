"""What runs on a machine with an NVIDIA GPU: the list of steps, most important first, each with a time limit.

    python3 tests/gpu/run.py --parts ~/jetmoe-gpu --limit 480 --output RESULTS

Needs Python's standard library; one step measures transformers where it is installed. results.json and logs/ in RESULTS are
written after every row, and `cargo xtask gpu report RESULTS` makes docs/gpu.md of them. `--dry` goes through all of it on the CPU,
with smaller sizes. `--continue` repeats only steps that did not end before.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import sys
import time

import checks
import machine
import parts
import speed
from commands import Context, Runner
from results import FAILED, FILE, NOT_RUN, RUNNING, TIMED_OUT, Results

# Name, title, limit in seconds, function. docs/devices.md refers to the names.
STEPS = (
    ("devices", "Devices, libraries and a first text", 90, checks.devices),
    ("golden", "Golden cases in float32", 150, checks.golden),
    ("precisions", "jetmoe-mini in every precision", 120, checks.precisions),
    ("speed", "Layers of JetMoE-8B's widths, beside transformers", 240, speed.speed),
    ("operators", "One decode step by ONNX Runtime's profile", 60, speed.operators),
    ("bus", "Bytes over the bus, as the driver counts them", 60, speed.bus),
    ("options", "Options, the cache, TensorRT", 150, checks.options),
    ("full-size", "Full size in float16", 300, speed.full_size),
)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much the steps do."""

    layers: int
    prompts: tuple
    batches: tuple
    new_tokens: int
    repetitions: int
    # Precision and profile of the graphs that are measured, most important first.
    graphs: tuple
    precisions: tuple
    # Chapters of the held-out text.
    chapters: int
    # Names of golden cases; None for all.
    cases: tuple | None


FULL = Sizes(
    layers=2,
    prompts=(128, 512),
    batches=(1, 8, 32),
    new_tokens=32,
    repetitions=3,
    graphs=(
        ("f16", "gpu"),
        ("q4f16", "gpu"),
        ("f16", "onnxruntime"),
        ("q4", "gpu"),
        ("q4f16", "onnxruntime"),
        ("f16", "portable"),
        ("q4", "onnxruntime"),
        ("q4f16", "portable"),
    ),
    precisions=checks.PRECISIONS,
    chapters=4,
    cases=None,
)
DRY = Sizes(
    layers=1,
    prompts=(4,),
    batches=(1,),
    new_tokens=2,
    repetitions=1,
    graphs=(("q4", "gpu"), ("q4", "onnxruntime")),
    precisions=("f16", "q4"),
    chapters=1,
    cases=("tiny", "top1", "classifier", "jetmoe-mini"),
)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=pathlib.Path, required=True, help="folder with all parts of `cargo xtask gpu pack`")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder of the results")
    parser.add_argument("--limit", type=float, default=480, help="seconds in all")
    parser.add_argument("--dry", action="store_true", help="on the CPU, with smaller sizes")
    parser.add_argument("--continue", dest="continued", action="store_true", help="only steps that did not end before")
    parser.add_argument("--steps", type=lambda text: text.split(","), help="only these, as in devices,golden")
    return parser.parse_args()


def prepare(given, work):
    """Unpacks the payload, finds the libraries, and sets the environment. Returns the payload's folder and the header."""
    payload = work / "payload"
    if given.continued and (payload / "bin").is_dir():
        manifest = parts.read_manifest(given.parts)
    else:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        manifest = parts.unpack(given.parts, payload)
    found = machine.describe()
    if given.dry:
        found |= {"libraries": {}, "driver_problem": None}
    else:
        names = machine.CUDA_LIBRARIES + machine.OPTIONAL_LIBRARIES
        found["libraries"] = machine.find_libraries(names, machine.package_folders())
        found["driver_problem"], found["libraries"][machine.DRIVER] = machine.open_driver()
    os.environ["LD_LIBRARY_PATH"] = machine.library_path(payload / "lib", found["libraries"])
    os.environ["ORT_DYLIB_PATH"] = str(payload / "lib" / manifest["library"])
    # the libraries and caches of this machine's user play no part
    os.environ.update(ORT_DISABLE_TELEMETRY="1", XDG_CACHE_HOME=str(work / "cache"))
    header = {"device": "cpu" if given.dry else "cuda", "dry": given.dry, "limit_seconds": given.limit}
    payload_facts = {key: value for key, value in manifest.items() if key != "parts"}
    return payload, header | {"payload": payload_facts, "machine": found}


def main():
    # ended from outside: the commands that still run end too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    given = arguments()
    deadline = time.monotonic() + given.limit
    given.parts = given.parts.expanduser().resolve()
    work = given.parts / "work"
    payload, header = prepare(given, work)
    plan = [(name, title) for name, title, _, _ in STEPS]
    before = given.parts / "results" / FILE
    folders = [given.output, given.parts / "results"]
    if given.continued and before.is_file():
        results = Results(folders, json.loads(before.read_text()))
        usable = results.content["machine"].get("usable")
        results.content["machine"] |= header["machine"] | {"usable": usable}
        results.content["finished"] = False
    else:
        results = Results.new(folders, header, plan)
    logs = given.output / "logs"
    context = Context(
        runner=Runner([logs], deadline),
        results=results,
        device=header["device"],
        sizes=DRY if given.dry else FULL,
        payload=payload,
        fixtures=pathlib.Path(__file__).resolve().parent.parent / "fixtures",
        work=work,
        logs=logs,
        machine=results.content["machine"],
        workers=min(6, max(1, header["machine"]["processors"])),
    )
    chosen = [step for step in STEPS if is_to_run(results.step(step[0]), given)]
    if any(action in speed.WIDE for _, _, _, action in chosen):
        context.wide = speed.Wide(context)
    try:
        run_steps(context, chosen, given.limit)
    finally:
        context.runner.close()
        if context.wide is not None:
            context.wide.close()
        shutil.rmtree(work / "cache", ignore_errors=True)
    results.content["finished"] = True
    results.save()
    failed = [step["title"] for step in results.content["steps"] if step["result"] in (FAILED, TIMED_OUT)]
    print(f"\nresults: {given.output / FILE}" + (f"\nfailed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def is_to_run(step, given):
    if given.steps and step["name"] not in given.steps:
        return False
    return not given.continued or step["result"] in (None, RUNNING, NOT_RUN, TIMED_OUT)


def run_steps(context, chosen, total):
    for name, _, limit, action in chosen:
        if context.remaining() < 5:
            context.results.step(name).update(result=NOT_RUN, note=f"the total limit of {total:.0f} s was reached before")
            continue
        context.step, context.until = name, time.monotonic() + limit
        with context.results.running(name):
            action(context)


if __name__ == "__main__":
    sys.exit(main())
