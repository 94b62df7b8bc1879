"""Starts and ends `jetmoe serve` for the checks. Standard library only, so that every environment can use it."""

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

START_SECONDS = 60


class Server:
    """A server on a free port of this machine.

    `models` are artifacts by the names that requests use. Other arguments are keys of the configuration: of a model (`slots`) or
    of the server (`limits={"requests": 8}`). `experts` makes the models report the experts of every token.
    """

    MODEL_KEYS = {
        "slots", "queue", "capacity", "prefill_chunk", "prefix_bytes", "backend", "preload", "private_copy", "verify_digests", "threads",
    }

    def __init__(self, jetmoe, models, *, experts=False, ready=True, listen="127.0.0.1:0", **settings):
        self.jetmoe = Path(jetmoe).resolve()
        self.waits = ready
        model_settings = {key: settings.pop(key) for key in list(settings) if key in self.MODEL_KEYS}
        if experts:
            model_settings["observe_experts"] = True
        self.config = {"listen": listen, "log": {"format": "json"}, **settings}
        self.config["models"] = {
            name: {"folder": str(Path(folder).resolve()), **model_settings} for name, folder in models.items()
        }
        self.process = None
        self.url = None
        self.lines = []

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="jetmoe-serve-")
        path = Path(self.folder.name) / "serve.toml"
        path.write_text(toml(self.config))
        command = [self.jetmoe, "serve", "--config", path]
        # its own group: an interruption of the check does not reach it twice
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            errors="replace", process_group=0, env=os.environ | {"RUST_BACKTRACE": "0"},
        )
        self.reader = threading.Thread(target=self._read_log, daemon=True)
        self.reader.start()
        if self.waits:
            try:
                self.wait_until_ready()
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        self.folder.cleanup()

    def _read_log(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            found = re.search(r"(?:listening|ready).*?(127\.0\.0\.1:\d+)", line)
            if found and self.url is None:
                self.url = f"http://{found[1]}/"

    @property
    def log(self):
        return "\n".join(self.lines)

    @property
    def pid(self):
        return self.process.pid

    @property
    def port(self):
        return int(self.url.rsplit(":", 1)[1].strip("/"))

    def wait_until_ready(self):
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                self.reader.join()
                raise AssertionError(f"the server ended with status {self.process.returncode}:\n{self.log}")
            if self.url and status_of(self.url + "ready") == 200:
                return
            time.sleep(0.05)
        raise AssertionError(f"the server is not ready after {START_SECONDS} s:\n{self.log}")

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def post(self, route, body, headers=None, timeout=120):
        """Status, headers and JSON of a request."""
        headers = {"content-type": "application/json"} | (headers or {})
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + route.lstrip("/"), data, headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.status, response.headers, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, json.loads(error.read())

    def get(self, route):
        with urllib.request.urlopen(self.url + route.lstrip("/"), timeout=30) as response:
            return response.read().decode()


def status_of(url):
    """The status of a GET, or `None` if nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return None


def toml(value, path=()):
    """A dictionary of simple values and dictionaries as TOML. JSON's strings, numbers, booleans and lists are TOML's too."""
    simple = {key: item for key, item in value.items() if not isinstance(item, dict)}
    lines = [f"[{'.'.join(json.dumps(part) for part in path)}]"] if path else []
    lines += [f"{key} = {json.dumps(item)}" for key, item in simple.items()]
    tables = [toml(item, (*path, key)) for key, item in value.items() if isinstance(item, dict)]
    return "\n".join(lines + tables)
