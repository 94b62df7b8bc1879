"""Steps that compare results: the golden cases, every precision, and the options of devices."""

import concurrent.futures
import json
import math

from machine import DRIVER, OPTIONAL_LIBRARIES
from results import FAILED, MEASURED, NOT_RUN, PASSED, TIMED_OUT, NotRun

PROFILES = ("portable", "onnxruntime", "gpu")
PRECISIONS = ("f32", "f16", "bf16", "int8", "q4", "q4f16")
PROMPT = "In the beginning"
# `cargo xtask ci gpu` expects it too (tests/commands/providers.rs).
GREEDY_TEXT = " of the reign of king Hezekiah sent\n"
TENSORRT_LIBRARIES = ("libnvinfer.so.10", "libnvonnxparser.so.10")
# Largest relative difference of two perplexities of float32 graphs.
PERPLEXITY_TOLERANCE = 1e-4


def devices(context):
    """The driver, the libraries, what `jetmoe devices` says, and a first text, without which nothing else is tried."""
    if context.device != "cpu":
        problem = context.machine["driver_problem"]
        context.add(what="driver", result=FAILED if problem else PASSED, note=problem or "")
        for name, folder in context.machine["libraries"].items():
            if name == DRIVER:
                continue  # most often the dynamic linker finds it
            missing = NOT_RUN if name in OPTIONAL_LIBRARIES else FAILED
            context.add(what=name, result=PASSED if folder else missing, note=folder or "not found")
    listed = context.jetmoe("devices", "--format", "json")
    report = listed.json() or {"backends": []}
    (context.logs / "devices.json").write_text(listed.stdout)
    providers = {p["name"]: p for backend in report["backends"] for p in backend["providers"]}
    wanted = "CPUExecutionProvider" if context.device == "cpu" else "CUDAExecutionProvider"
    for name in dict.fromkeys((wanted, "TensorrtExecutionProvider")):
        found = providers.get(name, {"usable": False, "detail": listed.message()})
        result = PASSED if found["usable"] else FAILED if name == wanted else NOT_RUN
        context.add(what=f"jetmoe devices: {name}", result=result, note=found["detail"])
    model = context.work / "first"
    outcome = context.export(context.mini, model) or context.generate(model, tokens=8, limit=90)
    as_expected = outcome.status == 0 and outcome.stdout == GREEDY_TEXT
    context.machine["usable"] = outcome.status == 0
    note = outcome.stdout.strip() if outcome.status == 0 else outcome.message()
    context.add(what=f"first text on {context.device}", result=PASSED if as_expected else FAILED, note=note)


def needs_device(context):
    """Later steps are not tried on a device that computes nothing."""
    if not context.machine.get("usable"):
        raise NotRun(f"{context.device} did not compute the first text")


def parallel(context, function, items):
    """Calls `function` for every item, a few at a time, and adds the rows that it returns in their order of completion."""
    with concurrent.futures.ThreadPoolExecutor(context.workers) as pool:
        for done in concurrent.futures.as_completed([pool.submit(function, *item) for item in items]):
            context.add(**done.result())


def row_of_profiles(columns, results):
    """A row whose columns are profiles: the text of each, after its result unless it passed, and the worst result of all."""
    worst = next((r for r in (FAILED, TIMED_OUT, PASSED) if r in [result for result, _ in results]), NOT_RUN)
    texts = [text if result == PASSED else f"{result}: {text}" for result, text in results]
    return columns | dict(zip(PROFILES, texts)) | {"result": worst}


def attempt(function, *arguments):
    """Result and text of a function; a limit that was reached and an unexpected error are results too."""
    try:
        return function(*arguments)
    except TimeoutError as reason:
        return TIMED_OUT, str(reason)
    except NotRun as reason:
        return NOT_RUN, str(reason)
    except Exception as error:
        return FAILED, f"{type(error).__name__}: {error}"


def verify(context, model, *options, device=None, limit=60):
    """`jetmoe verify` on the device. Returns the comparison, or None with the reason."""
    device = device or context.device
    arguments = ["verify", "--model", model, "--backend", "ort", "--device", device, "--format", "json"]
    outcome = context.jetmoe(*arguments, *options, limit=limit)
    report = outcome.json()
    if report is None:
        return None, outcome.message()
    found = report["backends"][0]
    if device != "cpu" and device not in found["runtime"]:
        return None, f"computed by {found['runtime']}"
    return found, ""


def worst_error(comparison, kind="max_relative_error"):
    """The largest error of all tensors; NaN if one has none."""
    errors = [tensor[kind] for tensor in comparison["tensors"]]
    return max((math.nan if error is None else error for error in errors), default=math.nan)


def task_of(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    classifier = any("ForSequenceClassification" in name for name in config.get("architectures", []))
    return "sequence-classification" if classifier else "causal-lm"


def golden(context):
    """Every golden case in float32, within the usual tolerances; greedy continuations must be identical."""
    needs_device(context)
    folders = [path for root in ("goldens", "models") for path in sorted((context.fixtures / root).iterdir())]
    cases = [path for path in folders if (path / "golden.safetensors").is_file()]
    chosen = [case for case in cases if context.sizes.cases is None or case.name in context.sizes.cases]
    parallel(context, lambda case: golden_row(context, case), [(case,) for case in chosen])
    if len(chosen) < len(cases):
        context.add(case=f"{len(cases) - len(chosen)} others", result=NOT_RUN, note="left out of a dry run")


def golden_row(context, case):
    task = task_of(case)

    def compare(profile):
        model = context.work / f"golden-{case.name}-{profile}"
        if failure := context.export(case, model, profile=profile, task=task):
            return FAILED, f"export: {failure.message()}"
        options = ("--checkpoint", case, "--golden", case / "golden.safetensors")
        comparison, problem = verify(context, model, *options)
        if comparison is None:
            return FAILED, problem
        greedy = comparison["greedy"]
        text = "" if greedy is None else ", same text" if greedy["identical"] else f", {greedy['first_difference']}"
        error = f"{worst_error(comparison):.1e}{text}"
        return (PASSED, error) if comparison["passed"] else (FAILED, error)

    return row_of_profiles({"case": case.name}, [attempt(compare, profile) for profile in PROFILES])


def precisions(context):
    """jetmoe-mini in every precision and profile: `jetmoe verify`, and the text that the CPU generates from the same graph."""
    needs_device(context)
    items = [(precision,) for precision in context.sizes.precisions]
    parallel(context, lambda precision: precision_row(context, precision), items)
    if left_out := [precision for precision in PRECISIONS if precision not in context.sizes.precisions]:
        context.add(precision=", ".join(left_out), result=NOT_RUN, note="left out of a dry run")


def precision_row(context, precision):
    def compare(profile):
        model = context.work / f"mini-{precision}-{profile}"
        if failure := context.export(context.mini, model, precision, profile):
            return FAILED, f"export: {failure.message()}"
        comparison, problem = verify(context, model, "--checkpoint", context.mini)
        if comparison is None:
            return FAILED, problem
        here, cpu = context.generate(model), context.generate(model, device="cpu")
        if here.status != 0 or cpu.status != 0:
            return FAILED, (here if here.status else cpu).message()
        same = here.stdout == cpu.stdout
        # with coarser arithmetic than float32 a near-tie may be decided otherwise
        required = comparison["greedy"] is not None and comparison["greedy"]["required"]
        error = f"{worst_error(comparison, 'median_token_error'):.1e}, {'same text' if same else 'other text'}"
        passed = comparison["passed"] and (same or not required)
        return (PASSED, error) if passed else (FAILED, error)

    return row_of_profiles({"precision": precision}, [attempt(compare, profile) for profile in PROFILES])


def options(context):
    """Everything else that docs/devices.md describes for a GPU."""
    needs_device(context)
    model = context.work / "options"
    for profile in PROFILES:
        if failure := context.export(context.mini, model / profile, profile=profile):
            context.add(what=f"export {profile}", result=FAILED, note=failure.message())
    checks = [
        ("auto takes the GPU", lambda: auto(context, model)),
        ("a GPU that is not there is an error", lambda: missing_gpu(context, model)),
        ("memory_limit of 2 GiB", lambda: memory_limit(context, model, 2 << 30)),
        ("memory_limit of 1 MiB", lambda: memory_limit(context, model, 1 << 20)),
        ("tf32=true", lambda: changed_errors(context, model / "gpu", "tf32", "cuda")),
    ]
    for profile in PROFILES:
        checks += [
            (f"cache, {profile}: prompt in chunks", lambda p=profile: same_text(context, model / p, "--prefill-chunk", 4)),
            (f"cache, {profile}: drafts are cut off", lambda p=profile: same_text(context, model / p, "--speculate", 4)),
            (f"cache, {profile}: cleared and filled again", lambda p=profile: perplexity(context, model / p)),
        ]
    checks += [
        ("TensorRT: text, and caches of engines and timings", lambda: tensorrt(context, model / "portable")),
        ("TensorRT: fp16=true", lambda: tensorrt_fp16(context, model / "portable")),
    ]

    def row(what, check):
        result, note = attempt(check)
        return {"what": what, "result": result, "note": note}

    parallel(context, row, checks)


def auto(context, model):
    context.needs_gpu()
    outcome = context.generate(model / "gpu", device="auto", tokens=8)
    passed = outcome.stdout == GREEDY_TEXT and "device auto takes cuda:0" in outcome.stderr
    return (PASSED, "") if passed else (FAILED, outcome.message())


def missing_gpu(context, model):
    context.needs_gpu()
    outcome = context.generate(model / "gpu", device="cuda:99", tokens=8)
    refused = outcome.status > 0 and "the device cuda:99 cannot be used" in outcome.stderr
    return (PASSED if refused else FAILED), outcome.message()


def memory_limit(context, model, limit):
    """Enough memory changes nothing; too little is an error, not the end of the process by a signal."""
    context.needs_gpu()
    outcome = context.generate(model / "gpu", "--provider-option", f"memory_limit={limit}", tokens=8)
    if outcome.status == 0:
        return (PASSED if outcome.stdout == GREEDY_TEXT else FAILED), "text as without it"
    return (PASSED if outcome.status > 0 and limit < 2 << 30 else FAILED), outcome.message()


def changed_errors(context, model, option, device, limit=60):
    """The errors with an option that makes arithmetic coarser, beside those without: they differ, or it has no effect."""
    context.needs_gpu()
    found = []
    for value in ("false", "true"):
        options = ("--checkpoint", context.mini, "--provider-option", f"{option}={value}")
        comparison, problem = verify(context, model, *options, device=device, limit=limit)
        if comparison is None:
            return FAILED, problem
        found.append(worst_error(comparison))
    note = f"largest relative error {found[1]:.1e}, without it {found[0]:.1e}"
    return (MEASURED if found[0] != found[1] else FAILED), note


def same_text(context, model, *options):
    """A text in which the cache is appended to or truncated, as on the CPU without that."""
    prompt = "And the LORD spake unto Moses, saying, Speak unto the children of Israel, saying,"
    here = context.generate(model, *options, tokens=48, prompt=prompt)
    cpu = context.generate(model, device="cpu", tokens=48, prompt=prompt)
    if here.status != 0 or cpu.status != 0:
        return FAILED, (here if here.status else cpu).message()
    return (PASSED, "text as on the CPU") if here.stdout == cpu.stdout else (FAILED, "another text than on the CPU")


def perplexity(context, model):
    """Perplexity of a few chapters, for which the cache is cleared and filled window by window."""
    text = context.work / f"eval-{model.name}.jsonl"
    lines = (context.mini / "eval.jsonl").read_text().splitlines(keepends=True)
    text.write_text("".join(lines[: context.sizes.chapters]))
    found = []
    for device in (context.device, "cpu"):
        arguments = ["eval", "--model", model, "--text", text, "--backend", "ort", "--exact", "--format", "json"]
        outcome = context.jetmoe(*arguments, "--device", device)
        report = outcome.json()
        if report is None:
            return FAILED, f"on {device}: {outcome.message()}"
        found.append(report["results"][0]["perplexity"])
    close = abs(found[0] - found[1]) <= PERPLEXITY_TOLERANCE * found[1]
    return (PASSED if close else FAILED), f"perplexity {found[0]:.4f}, on the CPU {found[1]:.4f}"


def needs_tensorrt(context):
    context.needs_gpu()
    missing = [name for name in TENSORRT_LIBRARIES if not context.machine["libraries"][name]]
    if missing:
        raise NotRun(f"no {' and '.join(missing)} on this machine")


def tensorrt_fp16(context, model):
    needs_tensorrt(context)
    return changed_errors(context, model, "fp16", "tensorrt", limit=120)


def tensorrt(context, model):
    """Engines for lengths from 0 cached tokens on, twice: the second run finds engines and timings."""
    needs_tensorrt(context)
    folders = {name: context.work / name for name in ("engine_cache", "timing_cache")}
    shapes = {"shapes_min": "1x1x0", "shapes_opt": "1x8x8", "shapes_max": "1x64x128"}
    given = [f"--provider-option={name}={value}" for name, value in (folders | shapes).items()]
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    seconds = []
    for _ in range(2):
        outcome = context.generate(model, *given, device="tensorrt", tokens=8, limit=120)
        if outcome.stdout != GREEDY_TEXT:
            return FAILED, outcome.message() if outcome.status else f"another text: {outcome.stdout.strip()}"
        seconds.append(outcome.seconds)
    files = {name: len(list(folder.iterdir())) for name, folder in folders.items()}
    note = f"{seconds[0]:.1f} s, again {seconds[1]:.1f} s; {files['engine_cache']} engine and {files['timing_cache']} timing files"
    return (PASSED if all(files.values()) else FAILED), note
