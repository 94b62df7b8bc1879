"""results.json: what was seen, written after every row, so that a run that is cut off still proves what it reached.

The file names all steps from its beginning. A step without a result was running, or not reached, when the file was written last.
"""

import contextlib
import datetime
import json
import os
import pathlib
import threading
import time

FILE = "results.json"
SCHEMA = 1

PASSED, FAILED, MEASURED = "passed", "failed", "measured"
# With the reason in `note`.
NOT_RUN, TIMED_OUT = "not run", "timed out"
# What a step is that was cut off.
RUNNING = "running"


class NotRun(Exception):
    """A step or a row cannot be run here; the text is the reason."""


class Results:
    """The file in several folders: the one that comes back, and the one that `--continue` reads."""

    def __init__(self, folders, content):
        self.folders = [pathlib.Path(folder) for folder in folders]
        self.content = content
        self._lock = threading.Lock()
        for folder in self.folders:
            folder.mkdir(parents=True, exist_ok=True)
        self.save()

    @staticmethod
    def new(folders, header, plan):
        """`plan`: pairs of name and title of every step."""
        steps = [{"name": name, "title": title, "result": None, "rows": []} for name, title in plan]
        started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        return Results(folders, {"schema_version": SCHEMA, "started": started, "finished": False, **header, "steps": steps})

    def step(self, name):
        return next(step for step in self.content["steps"] if step["name"] == name)

    def add(self, name, row):
        with self._lock:
            self.step(name)["rows"].append(row)
        self.save()
        what = " ".join(str(value) for value in row.values() if value not in (None, ""))
        print(f"    {what}", flush=True)

    @contextlib.contextmanager
    def running(self, name):
        """Records time and end of a step."""
        step = self.step(name)
        step.update(result=RUNNING, rows=[], note="")
        print(f"==> {step['title']}", flush=True)
        self.save()
        started = time.monotonic()
        try:
            yield step
            step["result"] = overall(step["rows"])
        except NotRun as reason:
            step.update(result=NOT_RUN, note=str(reason))
        except TimeoutError as reason:
            step.update(result=TIMED_OUT, note=str(reason))
        except Exception as error:  # a mistake in one step does not take the others
            step.update(result=FAILED, note=f"{type(error).__name__}: {error}")
        step["seconds"] = round(time.monotonic() - started, 1)
        print(f"    {step['result']}, {step['seconds']} s {step['note']}".rstrip(), flush=True)
        self.save()

    def save(self):
        with self._lock:
            text = json.dumps(self.content, indent=1) + "\n"
            for folder in self.folders:
                # a reader sees the old file or the new one
                written = folder / f"{FILE}.new"
                written.write_text(text)
                os.replace(written, folder / FILE)


def overall(rows):
    """The result of a step with these rows."""
    found = {row.get("result") for row in rows}
    for result in (FAILED, TIMED_OUT, PASSED, MEASURED, NOT_RUN):
        if result in found:
            return result
    return FAILED
