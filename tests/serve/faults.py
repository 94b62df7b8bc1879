"""Faults that need a process: signals, files that change, clients that leave.

    python tests/serve/faults.py JETMOE ARTIFACTS
"""

import argparse
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from checks import equal, holds, run_all, true
from server import Server, status_of

PROMPT = "In the beginning"
LONG = {"model": "mini", "prompt": PROMPT, "max_tokens": 400, "temperature": 0, "ignore_eos": True, "stream": True}


class Stream(threading.Thread):
    """A streamed completion, read in a thread."""

    def __init__(self, server, body):
        super().__init__(daemon=True)
        self.server, self.body = server, body
        self.text, self.error, self.done, self.failure = "", None, False, None
        self.started = threading.Event()

    def run(self):
        request = urllib.request.Request(self.server.url + "v1/completions", json.dumps(self.body).encode())
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                for line in response:
                    if line.startswith(b"data: [DONE]"):
                        self.done = True
                    elif line.startswith(b"data: "):
                        chunk = json.loads(line[6:])
                        self.error = self.error or chunk.get("error")
                        self.text += "".join(choice["text"] for choice in chunk.get("choices", []))
                        self.started.set()
        except OSError as error:
            self.failure = error
        self.started.set()


def streams(server, count, **changes):
    """Streams that have begun."""
    started = [Stream(server, LONG | changes | {"prompt": f"{PROMPT} {number}"}) for number in range(count)]
    for stream in started:
        stream.start()
    for stream in started:
        true(stream.started.wait(60), "a stream begins")
    return started


def wait_for_end(server, seconds):
    try:
        return server.process.wait(seconds)
    except Exception as error:
        raise AssertionError(f"the server still runs after {seconds} s:\n{server.log[-3000:]}") from error


def artifact(arguments, folder):
    """A copy of the artifact that may be changed."""
    return Path(shutil.copytree(arguments.artifacts / "mini", Path(folder) / "mini"))


def weights_of(folder):
    [weights] = folder.rglob("*.onnx_data")
    return weights


def sigterm_under_load(arguments):
    """Streams in progress are finished, no new connection is taken, and the exit status is 0."""
    with Server(arguments.jetmoe, {"mini": arguments.artifacts / "mini"}) as server:
        running = streams(server, 8, max_tokens=200)
        server.terminate()
        time.sleep(0.3)
        equal(status_of(server.url + "ready"), None, "the status of a new connection")
        for stream in running:
            stream.join(60)
            equal((stream.done, stream.error, stream.failure), (True, None, None), "end, error and failure of a stream")
        equal(wait_for_end(server, 30), 0, "the exit status")
        texts = [stream.text for stream in running]
    with Server(arguments.jetmoe, {"mini": arguments.artifacts / "mini"}) as server:
        for stream, text in zip(streams(server, 8, max_tokens=200), texts):
            stream.join(60)
            equal(text, stream.text, "the text of a stream that ended while the server did")


def sigterm_with_long_requests(arguments):
    """What is not finished in the time for it ends with an error event, and the exit status is 0."""
    with Server(arguments.jetmoe, {"mini": arguments.artifacts / "mini"}, shutdown_seconds=0.2, slots=2) as server:
        running = streams(server, 1, max_tokens=480) + [Stream(server, LONG | {"prompt": f"{PROMPT} {n}", "max_tokens": 480}) for n in range(5)]
        for stream in running[1:]:
            stream.start()
        time.sleep(0.1)
        server.terminate()
        equal(wait_for_end(server, 20), 0, "the exit status")
        for stream in running:
            stream.join(20)
            ended = stream.done or stream.error or stream.failure is not None
            true(ended, f"a stream ends: {stream.error}, {stream.failure}")
            true(stream.done or stream.error or stream.text == "", f"a stream that is cut says why: {stream.text[-80:]!r}")
        cut = [stream for stream in running if stream.error]
        true(cut, "at least one stream ends with an error event")
        holds(json.dumps(cut[0].error), "shut", "the error event")


def a_client_that_leaves_frees_its_slot(arguments):
    with Server(arguments.jetmoe, {"mini": arguments.artifacts / "mini"}, slots=1) as server:
        for _ in range(5):
            body = json.dumps(LONG).encode()
            head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(head.encode() + body)
                true(connection.recv(100).startswith(b"HTTP/1.1 200"), "the head of the response")
            start = time.monotonic()
            status, _, _ = server.post("v1/completions", {"model": "mini", "prompt": "x", "max_tokens": 1})
            equal(status, 200, "the request after it")
            true(time.monotonic() - start < 5, "the slot is free at once, not after 400 tokens")


def errors_and_logs_have_no_path(arguments):
    """Nothing that a client sends makes an error or a log line with a path of this machine."""
    with Server(arguments.jetmoe, {"mini": arguments.artifacts / "mini"}) as server:
        bodies = [b"{", b"\xff\xfe", b"[" * 100_000, json.dumps({"model": str(arguments.artifacts.resolve())}).encode()[:-1] + b',"prompt":1}']
        answers = [server.post("v1/completions", body) for body in bodies]
        for status, _, answer in answers:
            true(400 <= status < 500, f"status {status} of {answer}")
        for line in server.lines:
            true(str(Path.home()) not in line, f"a path in the log: {line}")


def damaged_artifacts_are_refused_before_start(arguments):
    with tempfile.TemporaryDirectory() as temporary:
        damages = {
            "a graph with other bytes": lambda folder: flip(next(iter(folder.rglob("*.onnx")))),
            "weights that are cut": lambda folder: os.truncate(weights_of(folder), 1000),
            "a manifest that is cut": lambda folder: os.truncate(folder / "jetmoe.json", 100),
            "no manifest": lambda folder: (folder / "jetmoe.json").unlink(),
        }
        for number, (name, damage) in enumerate(damages.items()):
            folder = artifact(arguments, Path(temporary) / str(number))
            damage(folder)
            with Server(arguments.jetmoe, {"mini": folder}, ready=False) as server:
                status = wait_for_end(server, 60)
                server.reader.join()
                equal(status, 2, f"the exit status for {name}:\n{server.log}")
                holds(server.log, "mini", f"the model's name in the message for {name}")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def weights_replaced_by_a_rename(arguments):
    """A new file in place of the weights does not reach a server that runs: it has the old one open."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = artifact(arguments, temporary)
        with Server(arguments.jetmoe, {"mini": folder}) as server:
            ask = lambda: server.post("v1/completions", {"model": "mini", "prompt": PROMPT, "max_tokens": 64, "temperature": 0})[2]
            before = ask()["choices"]
            weights = weights_of(folder)
            other = weights.with_name("other")
            other.write_bytes(bytes(weights.stat().st_size))
            os.replace(other, weights)
            equal(ask()["choices"], before, "the answer after the weights were replaced")


def weights_truncated_in_place(arguments):
    """Weights that are cut under a server: SIGBUS ends it with a message, because they are mapped. A server with a copy of its own
    goes on with the same answer."""
    for backend in ("ort", "tract"):
        for has_copy in (False, True):
            with tempfile.TemporaryDirectory() as temporary:
                folder = artifact(arguments, temporary)
                settings = {"backend": backend} | ({"private_copy": temporary} if has_copy else {})
                with Server(arguments.jetmoe, {"mini": folder}, **settings) as server:
                    ask = lambda: server.post("v1/completions", {"model": "mini", "prompt": PROMPT, "max_tokens": 8, "temperature": 0})
                    before = ask()[2]["choices"]
                    os.truncate(weights_of(folder), 0)
                    if has_copy:
                        equal(ask()[2]["choices"], before, f"the answer of {backend} after the weights were cut")
                        continue
                    try:
                        raise AssertionError(f"{backend} answers without weights: {ask()}")
                    except OSError:
                        equal(wait_for_end(server, 30), -signal.SIGBUS, "the exit status")
                    server.reader.join()
                    holds(server.log, "became shorter", "the message")


def an_address_in_use_is_named(arguments):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Server(arguments.jetmoe, {"mini": arguments.artifacts / "mini"}, ready=False, listen=f"127.0.0.1:{port}") as server:
            status = wait_for_end(server, 60)
            server.reader.join()
            equal(status, 2, f"the exit status:\n{server.log}")
            holds(server.log, f"127.0.0.1:{port}", "the address in the message")


CHECKS = [
    sigterm_under_load, sigterm_with_long_requests, a_client_that_leaves_frees_its_slot, errors_and_logs_have_no_path,
    damaged_artifacts_are_refused_before_start, weights_replaced_by_a_rename, weights_truncated_in_place,
    an_address_in_use_is_named,
]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("jetmoe", type=Path)
    arguments.add_argument("artifacts", type=Path)
    arguments.add_argument("--only", help="one check")
    arguments = arguments.parse_args()
    checks = [check for check in CHECKS if arguments.only in (None, check.__name__)]
    run_all(checks, arguments)
    print(f"faults: {len(checks)} checks passed")


if __name__ == "__main__":
    sys.exit(main())
