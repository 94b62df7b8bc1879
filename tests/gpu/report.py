"""Makes a page of results.json: what was measured, and everything that failed or was not reached.

    python3 tests/gpu/report.py RESULTS docs/gpu.md
"""

import argparse
import json
import pathlib
import sys

from results import FAILED, FILE, MEASURED, NOT_RUN, PASSED, RUNNING, SCHEMA, TIMED_OUT
from speed import PEER

# A graph of this precision and profile is compared with transformers: batch, prompt, milliseconds, times as fast.
TARGETS = (
    (1, 128, "step_ms", 2.0),
    (32, 128, "step_ms", 2.0),
    (1, 512, "prefill_ms", 1.0),
)
TARGET_GRAPHS = ("f16 gpu", "q4f16 gpu")
WHAT = {"step_ms": "decode", "prefill_ms": "prefill"}

HEADINGS = {
    "what": "check",
    "prefill_ms": "prefill, ms",
    "step_ms": "step, ms",
    "tokens_per_second": "tokens/s",
    "weight_bytes_per_step": "weights per step, MB",
    "bytes_per_second": "weights read, GB/s",
    "on_cpu": "on the CPU",
    "nonzero_share": "`NonZero`, share",
    "copies_to_host": "copies to the host",
    "bytes_to_host": "bytes",
    "copies_from_host": "copies from the host",
    "bytes_from_host": "bytes",
    "received_mb_per_second": "received, MB/s",
    "received_bytes_per_step": "received per step, bytes",
    "sent_mb_per_second": "sent, MB/s",
    "sent_bytes_per_step": "sent per step, bytes",
}
SCALES = {"weight_bytes_per_step": 1e6, "bytes_per_second": 1e9}
NOTES = {
    "golden": "Largest relative error of all tensors; the reference is transformers. The greedy continuation is part of it.",
    "precisions": "Median token error of `jetmoe verify`, against the reference with the graph's own weights, and the text of 32 "
    "tokens beside that of the same graph on the CPU. It must be the same where arithmetic is float32.",
    "speed": "Medians. Prompts are random tokens; the step is one token of each sequence after the prompt.",
    "operators": "Times are the host's: a kernel of the GPU is only started in them, unless its result is needed on the host, as "
    "that of `NonZero`. Bytes are those of the copy nodes of the graph, by their shapes; inputs and logits come on top.",
    "bus": "`nvidia-smi dmon -s t` while one sequence is decoded, medians of samples of one second; it counts everything that "
    "crosses the bus.",
}


class BadResults(Exception):
    """The file is no result of this script."""


def read(path):
    path = pathlib.Path(path)
    path = path / FILE if path.is_dir() else path
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadResults(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA:
        raise BadResults(f"{path} is not a results.json of schema {SCHEMA}")
    return content


def cell(value):
    if value is None or value == "":
        return "–"
    text = f"{value:,}".replace(",", " ") if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def table(headings, rows):
    lines = [f"| {' | '.join(headings)} |", f"|{' --- |' * len(headings)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(cell, row))} |" for row in rows)])


def rows_table(rows):
    """All columns that a row has, in their order, the result and the note last."""
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in ("result", "note")))
    columns += ["result"] + (["note"] if any(row.get("note") for row in rows) else [])

    def value(row, name):
        found = row.get(name)
        return found if found is None or name not in SCALES else f"{found / SCALES[name]:.1f}"

    return table([HEADINGS.get(name, name) for name in columns], [[value(row, name) for name in columns] for row in rows])


def result_of(step):
    """The result of a step in words; a run that was cut off left it without one."""
    result = step["result"]
    if result is None:
        return NOT_RUN, "the run ended before"
    if result == RUNNING:
        return "cut off", "the run ended during this step; its rows are those until then"
    return result, step.get("note", "")


def overview(steps):
    rows = []
    for step in steps:
        result, note = result_of(step)
        count = lambda wanted: sum(row.get("result") == wanted for row in step["rows"])
        counts = [f"{count(name)} {name}" for name in (PASSED, MEASURED, FAILED, TIMED_OUT, NOT_RUN) if count(name)]
        seconds = step.get("seconds")
        rows.append([f"`{step['name']}`", step["title"], result, ", ".join(counts), None if seconds is None else f"{seconds} s", note])
    return table(["step", "what", "result", "rows", "time", "note"], rows)


def problems(steps):
    """Every row that failed, was not run or was ended, and every step without rows of its own."""
    rows = []
    for step in steps:
        result, note = result_of(step)
        if result not in (PASSED, MEASURED) and note:
            rows.append([f"`{step['name']}`", "", result, note])
        for row in step["rows"]:
            if row.get("result") in (FAILED, TIMED_OUT, NOT_RUN):
                names = [str(value) for name, value in row.items() if name in ("what", "case", "precision", "graph")]
                marks = tuple(f"{mark}: " for mark in (FAILED, TIMED_OUT, NOT_RUN))
                cells = [f"{column}: {text}" for column, text in row.items() if str(text).startswith(marks)]
                reason = row.get("note") or "; ".join(cells)
                rows.append([f"`{step['name']}`", " ".join(names), row["result"], reason])
    return rows


def ratios(rows):
    """How many times as fast as transformers, for every graph, batch and prompt that both have."""
    timed = [row for row in rows if row.get("step_ms")]
    peers = {(row["batch"], row["prompt"]): row for row in timed if row["graph"] == PEER}
    found = []
    for row in timed:
        peer = peers.get((row["batch"], row["prompt"]))
        if peer is not None and row["graph"] != PEER:
            found.append({name: row[name] for name in ("graph", "batch", "prompt")} | {n: peer[n] / row[n] for n in WHAT})
    return found


def targets(rows):
    """Whether each target is reached; `not measured` where a figure of either program is missing."""
    found = {(ratio["graph"], ratio["batch"], ratio["prompt"]): ratio for ratio in ratios(rows)}
    lines = []
    for graph in TARGET_GRAPHS:
        for batch, prompt, what, least in TARGETS:
            ratio = found.get((graph, batch, prompt))
            seen = "not measured" if ratio is None else f"{ratio[what]:.2f}"
            reached = "–" if ratio is None else "reached" if ratio[what] >= least else "missed"
            lines.append([graph, WHAT[what], batch, prompt, f"≥ {least:g}", seen, reached])
    return table(["graph", "what", "batch", "prompt", "target", "times as fast as transformers", ""], lines)


def bandwidth(rows, copy):
    """Share of the card's bandwidth that the weights of a step take."""
    rows = [row for row in rows if row.get("bytes_per_second")]
    shares = [[row["graph"], row["batch"], row["prompt"], f"{row['bytes_per_second'] / copy:.3f}"] for row in rows]
    return table(["graph", "batch", "prompt", "share of the bandwidth"], shares)


def machine_table(content):
    machine, payload = content["machine"], content["payload"]
    card = machine.get("card") or {}
    rows = [["date", content["started"]]]
    rows += [[name, card[key]] for name, key in (("card", "name"), ("driver", "driver_version"), ("memory", "memory.total"))
             if key in card]  # fmt: skip
    rows.append(["processor", f"{machine['processor']}, {machine['processors']} available"])
    rows.append(["system", f"{machine['system']}, Python {machine['python']}"])
    rows += [[name, version or "not installed"] for name, version in machine["packages"].items()]
    rows.append(["libonnxruntime", f"{payload['library']}, code for sm_{payload['architecture']}"])
    rows.append(["jetmoe", f"{payload['commit']}, profile {payload['profile']}"])
    if copy := machine.get("copy_bytes_per_second"):
        rows.append(["bandwidth of a copy, read and written", f"{copy / 1e9:.0f} GB/s"])
    return table(["", ""], rows)


def page(content):
    steps = content["steps"]
    where = "a dry run on the CPU: it proves the script, nothing about a GPU" if content["dry"] else "a machine with an NVIDIA GPU"
    text = ["# CUDA", f"Written by `cargo xtask gpu report` from the results of {where}. Steps ran in this order, in at most "
            f"{content['limit_seconds']:.0f} s together. [devices.md](devices.md) describes the devices."]  # fmt: skip
    if not content.get("finished"):
        text.append("**The run was cut off**: it did not reach its end.")
    text += ["## Machine", machine_table(content), "## Overview", overview(steps), "## Failed or not run"]
    found = problems(steps)
    text.append(table(["step", "what", "result", "reason"], found) if found else "Nothing.")
    for step in steps:
        if not step["rows"]:
            continue
        text += [f"## {step['title']}"] + ([NOTES[step["name"]]] if step["name"] in NOTES else [])
        text.append(rows_table(step["rows"]))
        if step["name"] == "speed" and not content["dry"]:
            text += ["Targets:", targets(step["rows"])]
            if compared := ratios(step["rows"]):
                shown = [[r["graph"], r["batch"], r["prompt"], *(f"{r[what]:.2f}" for what in WHAT)] for r in compared]
                text += ["Times as fast as transformers:", table(["graph", "batch", "prompt", *WHAT.values()], shown)]
            if copy := content["machine"].get("copy_bytes_per_second"):
                text += ["Bytes of the weights that a step reads, per second, as a share of the bandwidth of the card's memory. "
                         "It is measured by a copy of 1 GiB with torch, which reads and writes:",
                         bandwidth(step["rows"], copy)]  # fmt: skip
    return "\n\n".join(text) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=pathlib.Path, help="results.json or its folder")
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--allow-dry", action="store_true", help="also of a dry run")
    arguments = parser.parse_args()
    try:
        content = read(arguments.results)
    except BadResults as error:
        sys.exit(f"error: {error}")
    if content["dry"] and not arguments.allow_dry:
        sys.exit(f"error: {arguments.results} is of a dry run, which proves nothing about a GPU\n  give the results of a GPU")
    arguments.page.write_text(page(content))
    print(f"{arguments.page} written")


if __name__ == "__main__":
    main()
