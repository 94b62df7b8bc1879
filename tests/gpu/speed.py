"""Steps that measure: graphs of JetMoE-8B's widths beside transformers, what a decode step consists of, full size."""

import concurrent.futures
import pathlib
import re
import shutil
import statistics
import subprocess
import sys

import checks
import traces
from results import FAILED, MEASURED, NOT_RUN, NotRun

HERE = pathlib.Path(__file__).parent
PEER = "transformers bfloat16"
FULL_LAYERS = 24
# Seconds and bytes that the full size needs at least: 17 GB are written twice.
FULL_SECONDS, FULL_BYTES = 120, 45 << 30


class Wide:
    """Artifacts of a few layers of JetMoE-8B's widths. They are made on the processor while the GPU is busy with other steps."""

    def __init__(self, context):
        self.checkpoint = context.work / "wide"
        self._pool = concurrent.futures.ThreadPoolExecutor(4)
        self._synth = self._pool.submit(self._write_checkpoint, context)
        self._exports = {graph: self._pool.submit(self._export, context, *graph) for graph in context.sizes.graphs}

    def _write_checkpoint(self, context):
        complete = self.checkpoint.with_name("wide.complete")
        if complete.is_file():
            return None
        # what an earlier run left incomplete
        shutil.rmtree(self.checkpoint, ignore_errors=True)
        options = ["--like", "jetmoe-8b", "--layers", context.sizes.layers, "--dtype", "bf16", "--seed", 1]
        jetmoe = context.payload / "bin" / "jetmoe"
        command = [jetmoe, "synth", *options, "--tokenizer", context.mini, "--output", self.checkpoint]
        outcome = context.runner.run("wide", command, 120)
        if outcome.status != 0:
            return outcome.message()
        complete.touch()
        return None

    def _export(self, context, precision, profile):
        if problem := self._synth.result():
            return problem
        folder = self.folder(precision, profile)
        if is_artifact(folder):
            return None
        command = [context.payload / "bin" / "jetmoe-export", self.checkpoint, "--output", folder]
        options = ["--precision", precision, "--profile", profile, "--force"]
        outcome = context.runner.run("wide", [*command, *options], 150)
        return None if outcome.status == 0 else outcome.message()

    def folder(self, precision, profile):
        return self.checkpoint.with_name(f"wide-{precision}-{profile}")

    def wait_for_checkpoint(self):
        if problem := self._synth.result():
            raise NotRun(f"jetmoe synth: {problem}")
        return self.checkpoint

    def wait_for(self, precision, profile):
        """The artifact, as soon as it is complete."""
        if problem := self._exports[precision, profile].result():
            raise NotRun(f"the export failed: {problem}")
        return self.folder(precision, profile)

    def close(self):
        self._pool.shutdown(wait=True, cancel_futures=True)


def is_artifact(folder):
    """Whether an export is complete: it writes this file last."""
    return (folder / "jetmoe.json").is_file()


def numbers(values):
    return ",".join(map(str, values))


def bench(context, model, precision, profile, prompts, batches, new_tokens, repetitions, limit=120):
    """The runs of `jetmoe bench`."""
    options = ["--precision", precision, "--profile", profile, "--prompt-tokens", numbers(prompts), "--batch", numbers(batches)]
    options += ["--new-tokens", new_tokens, "--repetitions", repetitions, "--format", "json"]
    outcome = context.jetmoe("bench", "--model", model, "--backend", "ort", "--device", context.device, *options, limit=limit)
    report = outcome.json()
    if report is None:
        raise RuntimeError(outcome.message())
    return report["results"][0]["runs"]


def add_runs(context, graph, runs):
    for run in runs:
        decode = run["decode"]
        step = decode["milliseconds_per_step"]["median"]
        row = {"graph": graph, "batch": run["batch"], "prompt": run["prompt_tokens"]}
        row["prefill_ms"] = round(run["prefill"]["milliseconds"]["median"], 3)
        row["step_ms"] = round(step, 4)
        row["tokens_per_second"] = round(1e3 * run["batch"] / step, 1)
        row["weight_bytes_per_step"] = round(decode["weight_bytes_per_step"])
        row["bytes_per_second"] = round(decode["weight_bytes_per_step"] / (step / 1e3))
        context.add(**row, result=MEASURED)


def speed(context):
    """transformers first, so that every later figure has something to be compared with."""
    checks.needs_device(context)
    sizes = context.sizes
    measured(context, PEER, lambda: transformers(context))
    for precision, profile in sizes.graphs:
        def run():
            model = context.wide.wait_for(precision, profile)
            runs = bench(context, model, precision, profile, sizes.prompts, sizes.batches, sizes.new_tokens, sizes.repetitions)
            add_runs(context, f"{precision} {profile}", runs)

        measured(context, f"{precision} {profile}", run)


def measured(context, graph, action):
    """Adds a row with the reason if an action added none."""
    try:
        action()
    except TimeoutError as reason:
        context.add(graph=graph, result="timed out", note=str(reason))
    except NotRun as reason:
        context.add(graph=graph, result=NOT_RUN, note=str(reason))
    except Exception as error:
        context.add(graph=graph, result=FAILED, note=str(error))


def transformers(context):
    missing = [name for name in ("torch", "transformers") if context.machine["packages"][name] is None]
    if missing:
        raise NotRun(f"{' and '.join(missing)} not installed")
    if context.device == "cpu":
        # a processor takes minutes for these widths
        name, model = f"{PEER}, golden case tiny", context.fixtures / "goldens" / "tiny"
    else:
        name, model = PEER, context.wide.wait_for_checkpoint()
    sizes = context.sizes
    peer = [sys.executable, HERE / "peer.py", model, context.device, numbers(sizes.batches), numbers(sizes.prompts)]
    outcome = context.run(peer, limit=150, environment={"HF_HUB_OFFLINE": "1"})
    found = outcome.json()
    if found is None:
        raise RuntimeError(outcome.stderr.strip().rpartition("\n")[2] or f"exit status {outcome.status}")
    context.machine["copy_bytes_per_second"] = found["copy_bytes_per_second"]
    for run in found["runs"]:
        rate = round(1e3 * run["batch"] / run["step_ms"], 1)
        context.add(graph=name, **run, tokens_per_second=rate, result=MEASURED)


def operators(context):
    """One decode step of each graph by ONNX Runtime's own profile: waiting for sizes, and copies over the bus."""
    checks.needs_device(context)
    for precision, profile in context.sizes.graphs:
        graph = f"{precision} {profile}"
        measured(context, graph, lambda: operators_row(context, precision, profile, graph))


def operators_row(context, precision, profile, graph):
    model = context.wide.wait_for(precision, profile)
    trace = context.work / f"trace-{precision}-{profile}.json"
    outcome = context.generate(model, "--trace", trace, tokens=8)
    step = traces.decode_step(traces.read(trace)) if outcome.status == 0 else None
    if step is None:
        raise RuntimeError(outcome.message() if outcome.status else "the trace has no decode step")
    (context.logs / f"operators-{precision}-{profile}.txt").write_text(traces.table(step))
    row = {"graph": graph, "nodes": step.nodes, "on_cpu": step.on_cpu, "step_ms": round(step.microseconds / 1e3, 3)}
    row["nonzero_share"] = round(step.share("NonZero"), 4)
    for direction in traces.COPIES.values():
        row[f"copies_{direction}"] = step.copies[direction]
        row[f"bytes_{direction}"] = step.copied_bytes[direction]
    context.add(**row, result=MEASURED)


def bus(context):
    """Bytes over the bus while steps run, as the driver counts them: everything, not only the nodes of the graph."""
    checks.needs_device(context)
    context.needs_gpu()
    if shutil.which("nvidia-smi") is None:
        raise NotRun("no nvidia-smi")
    for precision, profile in context.sizes.graphs[:3]:
        measured(context, f"{precision} {profile}", lambda: bus_row(context, precision, profile))


def bus_row(context, precision, profile):
    model = context.wide.wait_for(precision, profile)
    monitor = subprocess.Popen(["nvidia-smi", "dmon", "-s", "t", "-d", "1"], stdout=subprocess.PIPE, text=True)
    try:
        runs = bench(context, model, precision, profile, [16], [1], 1024, 3, limit=60)
    finally:
        monitor.terminate()
        shown = monitor.communicate()[0]
    rates = dmon_rates(shown)
    (context.logs / f"dmon-{precision}-{profile}.txt").write_text(shown)
    if not rates:
        raise NotRun(f"nvidia-smi dmon printed no rates: {shown.strip()[-100:]}")
    step = runs[0]["decode"]["milliseconds_per_step"]["median"]
    row = {"graph": f"{precision} {profile}", "samples": len(rates), "step_ms": round(step, 4)}
    for name, values in zip(("received", "sent"), zip(*rates)):
        rate = statistics.median(values)
        row[f"{name}_mb_per_second"] = rate
        row[f"{name}_bytes_per_step"] = round(rate * 1e6 * step / 1e3)
    context.add(**row, result=MEASURED)


def dmon_rates(text):
    """MB/s that the card received and sent, from the lines of `nvidia-smi dmon -s t`: card, rxpci, txpci. Seconds before and
    after the steps, in which the program loads or ends, are in it too, so the median is taken.
    """
    lines = re.findall(r"^\s*\d+\s+(\d+)\s+(\d+)\s*$", text, re.MULTILINE)
    return [(int(received), int(sent)) for received, sent in lines]


def full_size(context):
    """Random weights of JetMoE-8B's size in float16, and tokens per second."""
    checks.needs_device(context)
    context.needs_gpu()
    if context.remaining() < FULL_SECONDS:
        raise NotRun(f"{context.remaining():.0f} s were left, and it takes {FULL_SECONDS} s at least")
    free = shutil.disk_usage(context.work).free
    if free < FULL_BYTES:
        raise NotRun(f"{free >> 30} GiB of disk are free, and it takes {FULL_BYTES >> 30}")
    checkpoint, model = context.work / "full", context.work / "full-f16-gpu"
    options = ["--like", "jetmoe-8b", "--layers", FULL_LAYERS, "--dtype", "bf16", "--tokenizer", context.mini]
    written = context.jetmoe("synth", *options, "--output", checkpoint, limit=200)
    context.add(graph="synth, bf16", seconds=round(written.seconds, 1), result=MEASURED if written.status == 0 else FAILED)
    started = context.remaining()
    if failure := context.export(checkpoint, model, "f16", "gpu", limit=200):
        raise RuntimeError(failure.message())
    context.add(graph="export, f16 gpu", seconds=round(started - context.remaining(), 1), result=MEASURED)
    shutil.rmtree(checkpoint)
    add_runs(context, "f16 gpu, full size", bench(context, model, "f16", "gpu", [128], [1], 32, 2, limit=200))


# Steps that need the artifacts of `Wide`.
WIDE = (speed, operators, bus)
