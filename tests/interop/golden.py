"""Whether a graph computes the golden values. `tests/fixtures/goldens/make_goldens.py` says what they are."""

import collections.abc
import dataclasses

import numpy

Arrays = dict[str, numpy.ndarray]
# Runs a graph: inputs by name in, outputs by name out.
Run = collections.abc.Callable[[Arrays], Arrays]

# Largest absolute difference of logits, whose scale is about 10.
LOGITS_TOLERANCE = 2e-4
# Largest difference of every other tensor, as a share of the largest golden value.
RELATIVE_TOLERANCE = 2e-5


@dataclasses.dataclass
class Comparison:
    """Errors per family of tensors, each as a share of its tolerance, and what went wrong."""

    errors: dict[str, float] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)

    def tolerance(self, family: str, largest: float) -> float:
        """The tolerance of a tensor whose largest value is `largest`."""
        return LOGITS_TOLERANCE if family == "logits" else RELATIVE_TOLERANCE * largest

    def compare(self, what: str, family: str, found: numpy.ndarray, wanted: numpy.ndarray, valid: numpy.ndarray) -> None:
        """Compares where `valid`, which has the leading dimensions of both, is true."""
        if found.shape != wanted.shape:
            self.problems.append(f"{what} has the shape {found.shape}, not {wanted.shape}")
            return
        # a padded position carries no meaning, but NaN would spread from it
        if not numpy.isfinite(found).all():
            self.problems.append(f"{what} is not finite everywhere")
            return
        found, wanted = found[valid].astype(numpy.float64), wanted[valid].astype(numpy.float64)
        error = float(numpy.abs(found - wanted).max())
        tolerance = self.tolerance(family, float(numpy.abs(wanted).max()))
        self.errors[family] = max(self.errors.get(family, 0.0), error / tolerance)
        if error > tolerance:
            self.problems.append(f"{what} is off by {error:.1e}, more than {tolerance:.1e}")


class Case:
    """A golden file, and the runs of a graph that can be compared with it."""

    def __init__(self, golden: Arrays, task: str, empty_cache: Arrays, end_token: int, filler: int):
        """`empty_cache` holds the cache inputs by name, with no position in them and a batch of one."""
        self.golden = golden
        self.task = task
        self.empty_cache = empty_cache
        self.end_token = end_token
        self.filler = filler

    def check(self, run: Run) -> Comparison:
        comparison = Comparison()
        batch, length = self.golden["input_ids"].shape
        everything = slice(0, length)
        prefill = run(self.inputs(slice(0, batch), everything))
        self.compare(comparison, "the batch", prefill, slice(0, batch), everything)
        # with its padding, where it has some
        self.compare(comparison, "one sequence", run(self.inputs(slice(0, 1), everything)), slice(0, 1), everything)
        if self.empty_cache:
            self.check_in_two_pieces(comparison, run, length // 2)
        if self.task == "causal-lm":
            self.check_next_token(comparison, run, prefill)
            self.check_greedy_text(comparison, run, prefill)
        return comparison

    def inputs(self, rows: slice, columns: slice, past: Arrays | None = None) -> Arrays:
        """Tokens of the golden batch, after those whose cache is `past`."""
        batch = rows.stop - rows.start
        cache = {name: numpy.repeat(value, batch, axis=0) for name, value in self.empty_cache.items()}
        return {
            "input_ids": self.golden["input_ids"][rows, columns],
            "attention_mask": self.golden["attention_mask"][rows, : columns.stop],
            "position_ids": self.golden["position_ids"][rows, columns],
            **cache,
            **(past or {}),
        }

    def compare(self, comparison: Comparison, run_name: str, outputs: Arrays, rows: slice, columns: slice) -> None:
        """Compares every output with the golden values of those sequences and positions."""
        valid = self.golden["attention_mask"][rows] == 1
        for name, found in outputs.items():
            what = f"{name} of {run_name}"
            family, wanted = self.wanted(name)
            if family == "cache":
                if wanted is not None:
                    # [batch, heads, total, width] with the masked dimensions in front
                    found, wanted = found.swapaxes(1, 2), wanted[rows].swapaxes(1, 2)
                    comparison.compare(what, family, found, wanted, valid)
                elif "class_logits" not in self.golden:
                    comparison.problems.append(f"{what}: there is no golden value")
            elif wanted is None:
                comparison.problems.append(f"{what}: there is no golden value")
            elif self.task == "sequence-classification" and family == "logits":
                comparison.compare(what, family, found, wanted[rows], numpy.ones(len(found), bool))
            else:
                comparison.compare(what, family, found, wanted[rows, columns], valid[:, columns])

    def wanted(self, output: str) -> tuple[str, numpy.ndarray | None]:
        """The family of an output and its golden value, for the whole batch."""
        batch, length = self.golden["input_ids"].shape
        layers = sum(name.endswith(".output") for name in self.golden)
        match output.split("."):
            case ["logits"]:
                return "logits", self.golden.get("class_logits", self.golden.get("logits"))
            case ["last_hidden_state"]:
                return "hidden", self.golden["last_hidden_state"]
            case ["hidden_states", "0"]:
                return "hidden", self.golden["embeddings"]
            case ["hidden_states", index] if int(index) <= layers:
                return "hidden", self.golden[f"layer.{int(index) - 1}.output"]
            case ["attn_router_logits" | "mlp_router_logits" as family, layer]:
                flat = self.golden[f"layer.{layer}.{family}"]  # [batch * sequence, experts]
                return "router", flat.reshape(batch, length, -1)
            case ["present", _, _]:
                return "cache", self.golden.get(output)
        return "unknown", None

    def check_in_two_pieces(self, comparison: Comparison, run: Run, first: int) -> None:
        """The second piece of the batch, with the cache of the first, gives what the whole batch gave."""
        batch, length = self.golden["input_ids"].shape
        rows, rest = slice(0, batch), slice(first, length)
        past = cache_of(run(self.inputs(rows, slice(0, first))))
        self.compare(comparison, "the second piece", run(self.inputs(rows, rest, past)), rows, rest)

    def check_next_token(self, comparison: Comparison, run: Run, prefill: Arrays) -> None:
        outputs = run(self.step(prefill, self.golden["next.input_ids"], 0))
        valid = numpy.ones(outputs["logits"].shape[:2], bool)
        comparison.compare("logits of the next token", "logits", outputs["logits"], self.golden["next.logits"], valid)

    def check_greedy_text(self, comparison: Comparison, run: Run, outputs: Arrays) -> None:
        """The most likely tokens, one by one, are the golden ones."""
        wanted = self.golden["generated"]
        done = numpy.zeros(len(wanted), bool)
        columns = []
        for index in range(wanted.shape[1]):
            chosen = numpy.where(done, self.filler, outputs["logits"][:, -1].argmax(-1))
            columns.append(chosen)
            done |= chosen == self.end_token
            outputs = run(self.step(outputs, chosen[:, None], index))
        if (numpy.stack(columns, 1) != wanted).any():
            comparison.problems.append("the greedy continuation differs")

    def step(self, before: Arrays, ids: numpy.ndarray, index: int) -> Arrays:
        """Inputs for one token per sequence, the `index`th after the golden batch."""
        mask = self.golden["attention_mask"]
        more = numpy.ones((len(mask), index + 1), mask.dtype)
        return {
            "input_ids": ids,
            "attention_mask": numpy.concatenate([mask, more], axis=1),
            "position_ids": self.golden["position_ids"][:, -1:] + 1 + index,
            **cache_of(before),
        }


def cache_of(outputs: Arrays) -> Arrays:
    """The cache inputs for the tokens after those that gave `outputs`."""
    prefix = "present."
    return {
        f"past_key_values.{name.removeprefix(prefix)}": value
        for name, value in outputs.items()
        if name.startswith(prefix)
    }
