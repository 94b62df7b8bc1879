"""Every step as on a machine with a GPU, with a fake `jetmoe`: a mistake in a step must not cost minutes of such a machine."""

import contextlib
import dataclasses
import io
import os
import pathlib
import sys
import tempfile
import time
import unittest
from unittest import mock

import run
import speed
from commands import Context, Runner
from results import FAILED, MEASURED, NOT_RUN, PASSED, TIMED_OUT, Results

HERE = pathlib.Path(__file__).parent
SIZES = dataclasses.replace(run.FULL, precisions=("f32",), cases=("tiny", "classifier"), graphs=run.FULL.graphs[:2])
DMON = "#!/bin/sh\necho '    0     10     20'\n"


class Steps(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        programs = self.folder / "payload" / "bin"
        programs.mkdir(parents=True)
        fake = f"#!{sys.executable}\n" + (HERE / "fake_jetmoe.py").read_text()
        for path, text in [(programs / "jetmoe", fake), (programs / "jetmoe-export", fake), (programs / "nvidia-smi", DMON)]:
            path.write_text(text)
            path.chmod(0o755)
        for patch in (
            mock.patch.dict(os.environ, {"PATH": f"{programs}:{os.environ['PATH']}"}),
            mock.patch.object(speed, "FULL_BYTES", 0),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            patch.__enter__()
            self.addCleanup(patch.__exit__, None, None, None)

    def run_steps(self, *names, total=200, faults="", **machine):
        """The rows of every chosen step, and the results of the steps."""
        found = {"packages": {"torch": None, "transformers": None}, "libraries": {}, "driver_problem": None, "usable": True}
        found["libraries"] = dict.fromkeys(("libnvinfer.so.10", "libnvonnxparser.so.10"), "/a/folder")
        results = Results.new([self.folder / "results"], {"machine": found | machine}, [step[:2] for step in run.STEPS])
        work, logs = self.folder / "work", self.folder / "logs"
        work.mkdir()
        context = Context(
            runner=Runner([logs], time.monotonic() + total),
            results=results,
            device="cuda",
            sizes=SIZES,
            payload=self.folder / "payload",
            fixtures=HERE.parent / "fixtures",
            work=work,
            logs=logs,
            machine=results.content["machine"],
            workers=4,
        )
        chosen = [step for step in run.STEPS if step[0] in names]
        with mock.patch.dict(os.environ, {"FAKE_JETMOE": faults}):
            if any(step[3] in speed.WIDE for step in chosen):
                context.wide = speed.Wide(context)
            try:
                run.run_steps(context, chosen, total)
            finally:
                context.runner.close()
                if context.wide is not None:
                    context.wide.close()
        steps = {step["name"]: step for step in results.content["steps"]}
        return [steps[name] for name in names]

    def results_of(self, step, name):
        return {row[name]: row["result"] for row in step["rows"]}

    def test_every_step_goes_through(self):
        names = [name for name, *_ in run.STEPS]
        steps = self.run_steps(*names)
        for step in steps:
            problems = [step["note"], *(row for row in step["rows"] if row["result"] in (FAILED, TIMED_OUT))]
            self.assertEqual(problems, [""], step["name"])
        self.assertEqual(
            [step["result"] for step in steps], [PASSED, PASSED, PASSED, MEASURED, MEASURED, MEASURED, PASSED, MEASURED]
        )
        by_name = dict(zip(names, steps))
        self.assertEqual(by_name["operators"]["rows"][0]["bytes_to_host"], 32)
        self.assertEqual(by_name["bus"]["rows"][0]["received_bytes_per_step"], 20_000)
        self.assertEqual(by_name["speed"]["rows"][0]["note"], "torch and transformers not installed")
        self.assertEqual(by_name["speed"]["rows"][1]["bytes_per_second"], 500_000_000_000)
        self.assertNotIn(NOT_RUN, self.results_of(by_name["options"], "what").values())

    def test_without_a_driver_nothing_later_is_tried(self):
        devices, golden, full = self.run_steps("devices", "golden", "full-size", faults="no driver", driver_problem="none")
        self.assertEqual((devices["result"], golden["result"], full["result"]), (FAILED, NOT_RUN, NOT_RUN))
        self.assertEqual(devices["rows"][0], {"what": "driver", "result": FAILED, "note": "none"})
        self.assertEqual(devices["rows"][-1]["note"], "the device cuda cannot be used: no driver")
        self.assertEqual(full["note"], "cuda did not compute the first text")

    def test_a_processor_that_computes_instead_is_a_failure(self):
        (golden,) = self.run_steps("golden", faults="cpu")
        self.assertEqual(golden["result"], FAILED)
        self.assertIn("computed by ort 1.31.1", golden["rows"][0]["gpu"])

    def test_another_text_than_on_the_cpu_is_a_failure(self):
        precisions, options = self.run_steps("precisions", "options", faults="other text")
        self.assertIn("other text", precisions["rows"][0]["portable"])
        found = self.results_of(options, "what")
        for what in ("auto takes the GPU", "cache, gpu: prompt in chunks", "TensorRT: text, and caches of engines and timings"):
            self.assertEqual(found[what], FAILED, what)

    def test_what_is_not_there_is_not_run_with_the_reason(self):
        (options,) = self.run_steps("options", libraries=dict.fromkeys(("libnvinfer.so.10", "libnvonnxparser.so.10")))
        rows = [row for row in options["rows"] if row["what"].startswith("TensorRT")]
        self.assertEqual([row["result"] for row in rows], [NOT_RUN, NOT_RUN])
        self.assertIn("no libnvinfer.so.10", rows[0]["note"])

    def test_the_full_size_is_not_begun_without_time(self):
        (full,) = self.run_steps("full-size", total=60)
        self.assertEqual(full["result"], NOT_RUN)
        self.assertIn("it takes 120 s at least", full["note"])

    def test_steps_after_the_total_limit_say_so(self):
        golden, options = self.run_steps("golden", "options", total=4)
        self.assertEqual([golden["result"], options["result"]], [NOT_RUN, NOT_RUN])
        self.assertEqual(golden["note"], "the total limit of 4 s was reached before")


if __name__ == "__main__":
    unittest.main()
