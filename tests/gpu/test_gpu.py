"""The scripts themselves, without a GPU: what goes wrong on the other machine must be found here."""

import contextlib
import io
import json
import pathlib
import struct
import sys
import tarfile
import tempfile
import time
import types
import unittest

import architectures
import checks
import machine
import pack
import parts
import report
import run
import speed
import traces
from commands import Runner
from results import FAILED, MEASURED, NOT_RUN, PASSED, TIMED_OUT, NotRun, Results

RECORDED = pathlib.Path(__file__).parent / "recorded"


def fat_binary(*entries):
    """A fat binary of entries: kind, architecture, code."""
    content = b""
    for kind, architecture, code in entries:
        header = struct.pack("<HHIQ", kind, 0x101, 64, len(code)).ljust(28, b"\1") + struct.pack("<I", architecture)
        content += header.ljust(64, b"\2") + code
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(content)) + content


class Architectures(unittest.TestCase):
    first = fat_binary((2, 80, b"eighty"), (2, 90, b"ninety"), (1, 90, b"ptx"))
    library = b"\x7fELF before" + first + b"between" + fat_binary((2, 90, b"more ninety"), (2, 100, b"hundred")) + b"after"

    def kept(self, library, architecture=90):
        data = bytearray(library)
        return data, *architectures.keep(data, architecture)

    def test_only_the_code_of_the_architecture_stays(self):
        data, sizes, zeroed = self.kept(self.library)
        self.assertEqual(len(data), len(self.library))
        expected = self.library
        for code in (b"eighty", b"ptx", b"hundred"):
            expected = expected.replace(code, bytes(len(code)))
        self.assertEqual(bytes(data), expected)
        self.assertEqual(zeroed, len(b"eighty" b"ptx" b"hundred"))
        self.assertEqual(sizes, {"sm_80": 6, "sm_90": 17, "ptx_90": 3, "sm_100": 7})

    def test_a_library_without_the_architecture_is_refused_and_unchanged(self):
        data = bytearray(self.library)
        with self.assertRaisesRegex(architectures.MissingArchitecture, "sm_75; the library has sm_80, sm_90, ptx_90, sm_100"):
            architectures.keep(data, 75)
        self.assertEqual(bytes(data), self.library)

    def test_ptx_alone_is_no_machine_code(self):
        with self.assertRaises(architectures.MissingArchitecture):
            self.kept(fat_binary((1, 90, b"ptx")))

    def test_bytes_that_only_look_like_a_header_are_left(self):
        magic = struct.pack("<I", 0xBA55ED50)
        for false in (magic, magic + b"\xff" * 12, struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 1 << 40), magic[:3]):
            data, _, zeroed = self.kept(false + self.first + false)
            self.assertEqual((bytes(data[: len(false)]), zeroed), (false, 9))
            self.assertEqual(bytes(data[len(data) - len(false) :]), false)

    def test_an_entry_of_another_kind_ends_its_binary(self):
        _, sizes, _ = self.kept(fat_binary((2, 90, b"code"), (7, 80, b"other"), (2, 80, b"never read")))
        self.assertEqual(sizes, {"sm_90": 4})


class Parts(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def pack(self, files, part_bytes, block_bytes=64):
        archive = self.folder / "payload.tar"
        with tarfile.open(archive, "w") as tar:
            for name, content in files.items():
                (self.folder / "file").write_bytes(content)
                tar.add(self.folder / "file", arcname=name)
        blocks = parts.compress(archive, preset=0, threads=2, block_bytes=block_bytes)
        folders = parts.write(blocks, self.folder / "parts", part_bytes, {"library": "lib.so"})
        collected = self.folder / "collected"
        collected.mkdir()
        for file in (file for folder in folders for file in folder.iterdir()):
            file.rename(collected / file.name)
        return folders, collected

    files = {"bin/jetmoe": bytes(range(256)) * 20, "lib/lib.so": b"library" * 500}

    def test_parts_are_joined_in_order(self):
        folders, collected = self.pack(self.files, part_bytes=300)
        self.assertGreater(len(folders), 9)
        self.assertEqual([folder.name for folder in folders[:2]], ["part-1", "part-2"])
        self.assertTrue(all((collected / parts.part_name(n + 1)).stat().st_size <= 300 for n in range(len(folders))))
        manifest = parts.unpack(collected, self.folder / "unpacked")
        self.assertEqual(manifest["library"], "lib.so")
        for name, content in self.files.items():
            self.assertEqual((self.folder / "unpacked" / name).read_bytes(), content)

    def test_one_part_is_enough_for_little(self):
        folders, collected = self.pack(self.files, part_bytes=1 << 20)
        self.assertEqual(len(folders), 1)
        parts.unpack(collected, self.folder / "unpacked")

    def test_a_missing_and_a_damaged_part_are_named(self):
        _, collected = self.pack(self.files, part_bytes=300)
        second = collected / parts.part_name(2)
        content = second.read_bytes()
        second.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with self.assertRaisesRegex(parts.BadPayload, "payload.02 is damaged"):
            parts.unpack(collected, self.folder / "unpacked")
        second.unlink()
        with self.assertRaisesRegex(parts.BadPayload, "payload.02 does not exist"):
            parts.unpack(collected, self.folder / "unpacked")
        (collected / parts.MANIFEST).unlink()
        with self.assertRaisesRegex(parts.BadPayload, "manifest.json does not exist"):
            parts.unpack(collected, self.folder / "unpacked")

    def test_the_last_command_starts_the_steps(self):
        commands = pack.instructions(3, pathlib.Path(".gpu"))
        self.assertEqual([carried for carried, _ in commands], [".gpu/part-1", ".gpu/part-2", ".gpu/part-3"])
        self.assertEqual(["run.py" in command for _, command in commands], [False, False, True])
        self.assertTrue(all(f"cp {carried}/*" in command for carried, command in commands))


class Commands(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def test_a_command_is_logged_and_its_first_error_is_its_message(self):
        script = "import sys; print('{}'); sys.exit('warning: x\\nerror: no such device\\nerror: second')"
        outcome = Runner([self.folder], time.monotonic() + 60).run("step", [sys.executable, "-c", script], 30)
        self.assertEqual((outcome.status, outcome.json(), outcome.message()), (1, {}, "no such device"))
        self.assertIn("exit status 1", (self.folder / "step.txt").read_text())

    def test_a_limit_ends_a_command_and_is_named(self):
        forever = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(600)"]
        with self.assertRaisesRegex(TimeoutError, "1 s for one command"):
            Runner([self.folder], time.monotonic() + 60).run("step", forever, 1)
        self.assertIn("timed out", (self.folder / "step.txt").read_text())

    def test_nothing_is_started_after_the_total_limit(self):
        with self.assertRaisesRegex(TimeoutError, "the total limit was reached before it started"):
            Runner([self.folder], time.monotonic()).run("step", [sys.executable, "-c", "pass"], 30)


class RecordedSteps(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        # it prints its progress
        printed = contextlib.redirect_stdout(io.StringIO())
        printed.__enter__()
        self.addCleanup(printed.__exit__, None, None, None)
        self.results = Results.new([self.folder], {"dry": False}, [("one", "One"), ("two", "Two")])

    def on_disk(self, name="one"):
        content = json.loads((self.folder / "results.json").read_text())
        return next(step for step in content["steps"] if step["name"] == name)

    def test_every_row_is_on_disk_before_the_step_ends(self):
        with self.results.running("one"):
            self.results.add("one", {"what": "first", "result": PASSED})
            self.assertEqual((self.on_disk()["result"], len(self.on_disk()["rows"])), ("running", 1))
        self.assertEqual(self.on_disk()["result"], PASSED)
        self.assertIsNone(self.on_disk("two")["result"])

    def test_the_end_of_a_step_has_its_reason(self):
        for error, result in ((NotRun("no torch"), NOT_RUN), (TimeoutError("60 s"), TIMED_OUT), (KeyError("x"), FAILED)):
            with self.results.running("one"):
                raise error
            self.assertEqual(self.on_disk()["result"], result)
            self.assertTrue(self.on_disk()["note"])

    def test_one_failed_row_fails_a_step_and_no_row_is_a_failure(self):
        for found, result in (
            ([PASSED, FAILED, NOT_RUN], FAILED),
            ([PASSED, TIMED_OUT], TIMED_OUT),
            ([PASSED, NOT_RUN], PASSED),
            ([MEASURED, NOT_RUN], MEASURED),
            ([NOT_RUN], NOT_RUN),
            ([], FAILED),
        ):
            with self.results.running("one"):
                for row in found:
                    self.results.add("one", {"result": row})
            self.assertEqual(self.on_disk()["result"], result, found)


class Rows(unittest.TestCase):
    def test_a_row_has_the_worst_result_of_its_profiles_and_every_reason(self):
        row = checks.row_of_profiles({"case": "tiny"}, [(PASSED, "1e-6"), (FAILED, "NaN"), (NOT_RUN, "no kernel")])
        self.assertEqual(
            row, {"case": "tiny", "portable": "1e-6", "onnxruntime": "failed: NaN", "gpu": "not run: no kernel", "result": FAILED}
        )

    def test_an_error_without_a_number_is_the_worst(self):
        tensors = lambda *errors: {"tensors": [{"max_relative_error": error} for error in errors]}
        self.assertEqual(checks.worst_error(tensors(1e-6, 2e-6)), 2e-6)
        self.assertNotEqual(checks.worst_error(tensors(None, 2e-6)), 2e-6)

    def test_the_steps_of_the_documents_exist(self):
        page = (pathlib.Path(__file__).parents[2] / "docs" / "devices.md").read_text()
        listed = page.partition("## Not tested")[2]
        for name, *_ in run.STEPS:
            self.assertIn(f"`{name}`", listed)


class Machine(unittest.TestCase):
    def test_libraries_are_found_in_packages_before_the_system(self):
        with tempfile.TemporaryDirectory() as folder:
            packages, system = pathlib.Path(folder, "site-packages"), pathlib.Path(folder, "system")
            for place in (packages / "nvidia" / "cu13" / "lib", system):
                place.mkdir(parents=True)
                (place / "libcublas.so.13").touch()
            (system / "libcurand.so.10").touch()
            names = ("libcublas.so.13", "libcurand.so.10", "libcudnn.so.9")
            found = machine.find_libraries(names, [packages], [str(system)])
            self.assertEqual(list(found.values()), [str(packages / "nvidia" / "cu13" / "lib"), str(system), None])
            path = machine.library_path("/own", found).split(":")
            self.assertEqual(path[:3], ["/own", str(packages / "nvidia" / "cu13" / "lib"), str(system)])

    def test_a_driver_that_cannot_be_used_is_named_with_the_reason(self):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, machine.DRIVER).write_text("no library")
            if machine.open_driver([])[0]:  # not on a machine with a driver
                self.assertIn("no NVIDIA driver: libcuda.so.1", machine.open_driver([folder])[0])
        answers = lambda init, count: types.SimpleNamespace(
            cuInit=lambda _: init, cuDeviceGetCount=lambda pointer: setattr(pointer._obj, "value", count) or 0
        )
        self.assertIn("returned 100", machine.driver_problem(answers(100, 0)))
        self.assertEqual(machine.driver_problem(answers(0, 0)), "the driver has no device")
        self.assertIsNone(machine.driver_problem(answers(0, 1)))

    def test_rates_of_the_bus_are_read_without_headings_and_gaps(self):
        shown = "# gpu  rxpci  txpci\n# Idx   MB/s   MB/s\n    0     12      3\n    0      -      -\n    0    140      5\n"
        self.assertEqual(speed.dmon_rates(shown), [(12, 3), (140, 5)])
        self.assertEqual(speed.dmon_rates("Failed to initialize NVML"), [])


def node(operator, at, took, shape=None, provider="CUDAExecutionProvider"):
    arguments = {"op_name": operator, "provider": provider, "output_type_shape": shape or []}
    return {"cat": "Node", "name": f"n{at}_kernel_time", "ts": at, "dur": took, "args": arguments}


class Traces(unittest.TestCase):
    call = staticmethod(lambda at, took: {"cat": "Session", "name": "model_run", "ts": at, "dur": took, "args": {}})

    def test_a_decode_step_is_the_median_call_after_the_prompt(self):
        events = [self.call(0, 900), node("NonZero", 10, 800), self.call(1000, 50), self.call(2000, 100), self.call(3000, 70)]
        events += [
            node("NonZero", 3010, 14),
            node("MemcpyToHost", 3030, 6, [{"int64": [2, 3]}, {"float16": [5]}]),
            node("MemcpyFromHost", 3040, 2, [{"float": [4]}]),
            node("Shape", 3050, 1, provider="CPUExecutionProvider"),
            node("NonZero", 2010, 90),
            {"cat": "Node", "name": "n_fence_before", "ts": 3011, "dur": 1, "args": {}},
        ]
        step = traces.decode_step(events)
        self.assertEqual((step.microseconds, step.nodes, step.on_cpu), (70, 4, 1))
        self.assertAlmostEqual(step.share("NonZero"), 0.2)
        self.assertEqual(step.copies, {"to_host": 1, "from_host": 1})
        self.assertEqual(step.copied_bytes, {"to_host": 6 * 8 + 5 * 2, "from_host": 16})
        self.assertIn("NonZero", traces.table(step))

    def test_a_prompt_alone_is_no_decode_step(self):
        self.assertIsNone(traces.decode_step([self.call(0, 900)]))


class Report(unittest.TestCase):
    """`recorded/results.json` is made up: a run with failures that was cut off while it measured."""

    content = report.read(RECORDED)

    def section(self, title):
        return report.page(self.content).partition(f"## {title}\n")[2].partition("\n## ")[0]

    def test_a_run_that_was_cut_off_says_so_and_keeps_what_it_reached(self):
        self.assertIn("**The run was cut off**", report.page(self.content))
        overview = self.section("Overview")
        self.assertRegex(overview, r"`speed` .* cut off .* the run ended during this step")
        self.assertRegex(overview, r"`full-size` .* not run .* the run ended before")
        self.assertRegex(overview, r"`golden` .* failed \| 1 passed, 1 failed")

    def test_every_failure_is_named_with_its_reason(self):
        found = self.section("Failed or not run")
        self.assertIn("| `golden` | tiny | failed | onnxruntime: failed: 3.0e-03, same text |", found)
        self.assertIn("| `speed` | q4f16 gpu | failed | out of memory \\| 80 GB |", found)
        self.assertIn("| `options` | – | not run | no time was left |", found)
        self.assertNotIn("legacy", found)

    def test_a_ratio_needs_both_programs(self):
        rows = next(step["rows"] for step in self.content["steps"] if step["name"] == "speed")
        compared = [(ratio["graph"], ratio["batch"], ratio["prompt"]) for ratio in report.ratios(rows)]
        self.assertEqual(compared, [("f16 gpu", 1, 128), ("f16 gpu", 1, 512)])
        targets = report.targets(rows)
        self.assertIn("| f16 gpu | decode | 1 | 128 | ≥ 2 | 2.50 | reached |", targets)
        self.assertIn("| f16 gpu | prefill | 1 | 512 | ≥ 1 | 0.80 | missed |", targets)
        self.assertIn("| f16 gpu | decode | 32 | 128 | ≥ 2 | not measured | – |", targets)

    def test_bandwidth_is_a_share_of_the_measured_copy(self):
        section = self.section("Layers of JetMoE-8B's widths, beside transformers")
        self.assertIn("| f16 gpu | 1 | 128 | 0.250 |", section)

    def test_the_machine_is_named(self):
        machine_section = self.section("Machine")
        for fact in ("NVIDIA H100", "driver", "580.65.06", "2026-11-28", "torch", "transformers", "not installed"):
            self.assertIn(fact, machine_section)

    def test_another_file_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(report.BadResults, "cannot be read"):
                report.read(folder)
            pathlib.Path(folder, "results.json").write_text('{"schema_version": 9}')
            with self.assertRaisesRegex(report.BadResults, "schema 1"):
                report.read(folder)


if __name__ == "__main__":
    unittest.main()
