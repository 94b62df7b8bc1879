"""Runs the project's commands with time limits and logs."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import threading
import time

import results

LOG_CHARACTERS = 4000


@dataclasses.dataclass
class Outcome:
    """What a command printed, and how it ended."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    def message(self):
        """The first line of an error, without colours and repetition."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error")] or lines
        return (errors or [f"exit status {self.status}"])[0].removeprefix("error: ")[:300]

    def json(self):
        try:
            return json.loads(self.stdout)
        except ValueError:
            return None


class Runner:
    """Starts commands, and ends those that still run when its time is over."""

    def __init__(self, log_folders, deadline):
        self.log_folders = [pathlib.Path(folder) for folder in log_folders]
        for folder in self.log_folders:
            folder.mkdir(parents=True, exist_ok=True)
        self.deadline = deadline
        self._children = set()
        self._lock = threading.Lock()

    def run(self, log, arguments, limit, until=None, environment=None):
        """Runs a command for at most `limit` seconds, to `until` (a step's end) and to the total limit. TimeoutError names the
        limit that ended it. The log is a file of that name, shared by the commands of a step.
        """
        arguments = [str(argument) for argument in arguments]
        started = time.monotonic()
        limits = [(started + limit, f"{limit:.0f} s for one command"), (self.deadline, "the total limit")]
        if until is not None:
            limits.append((until, "the limit of the step"))
        end, reason = min(limits)
        if end - started < 0.5:
            raise TimeoutError(f"{reason} was reached before it started")
        child = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=os.environ | (environment or {}),
            start_new_session=True,
        )
        with self._lock:
            self._children.add(child)
        try:
            stdout, stderr = child.communicate(timeout=end - started)
        except subprocess.TimeoutExpired:
            kill(child)
            stdout, stderr = child.communicate()
            self._write(log, arguments, "timed out", time.monotonic() - started, stdout, stderr)
            raise TimeoutError(f"{pathlib.Path(arguments[0]).name} was ended: {reason}") from None
        finally:
            with self._lock:
                self._children.discard(child)
        seconds = time.monotonic() - started
        self._write(log, arguments, f"exit status {child.returncode}", seconds, stdout, stderr)
        return Outcome(child.returncode, stdout, stderr, seconds)

    def close(self):
        """Ends what still runs."""
        with self._lock:
            for child in self._children:
                kill(child)

    def _write(self, log, arguments, end, seconds, stdout, stderr):
        text = f"$ {' '.join(arguments)}\n{end}, {seconds:.1f} s\n"
        text += "".join(f"{output[-LOG_CHARACTERS:]}\n" for output in (stdout, stderr) if output.strip())
        with self._lock:
            for folder in self.log_folders:
                with open(folder / f"{log}.txt", "a") as file:
                    file.write(f"{text}\n")


def kill(child):
    """Ends a command with the processes that it started."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


@dataclasses.dataclass
class Context:
    """Everything that a step needs."""

    runner: Runner
    results: results.Results
    # Execution provider: `cuda`, or `cpu` in a dry run.
    device: str
    sizes: "object"
    payload: pathlib.Path
    fixtures: pathlib.Path
    work: pathlib.Path
    logs: pathlib.Path
    machine: dict
    workers: int
    # Artifacts of JetMoE-8B's widths: `speed.Wide`.
    wide: "object" = None
    # Name of the running step.
    step: str = ""
    # End of the running step.
    until: float = 0.0

    def add(self, **row):
        self.results.add(self.step, row)

    def remaining(self):
        """Seconds to the total limit."""
        return self.runner.deadline - time.monotonic()

    def run(self, arguments, limit=60, environment=None):
        return self.runner.run(self.step, arguments, limit, self.until, environment)

    def jetmoe(self, *arguments, limit=60):
        return self.run([self.payload / "bin" / "jetmoe", *arguments], limit)

    def export(self, checkpoint, output, precision="f32", profile="portable", task="causal-lm", limit=60):
        """Exports to a new folder. Returns the outcome if it failed."""
        options = ["--output", output, "--force", "--precision", precision, "--profile", profile, "--task", task]
        outcome = self.run([self.payload / "bin" / "jetmoe-export", checkpoint, *options], limit)
        return None if outcome.status == 0 else outcome

    def generate(self, model, *options, device=None, tokens=32, limit=60, prompt="In the beginning"):
        """Greedy text in float32 arithmetic where the graph has it. Activations are not quantized, because only the CPU does."""
        arguments = ["run", "--model", model, "--backend", "ort", "--device", device or self.device, "--exact"]
        return self.jetmoe(
            *arguments, "--prompt", prompt, "--max-new-tokens", tokens, *options, limit=limit
        )

    @property
    def mini(self):
        return self.fixtures / "models" / "jetmoe-mini"

    def needs_gpu(self):
        if self.device == "cpu":
            raise results.NotRun("needs a GPU; this is a dry run on the CPU")
