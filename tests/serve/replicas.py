"""Two replicas of `jetmoe serve` behind nginx, by examples/serve/nginx.conf: one is killed, started again and ended under load.

    python tests/serve/replicas.py JETMOE ARTIFACTS

A client that retries loses no accepted request when a replica is killed (SIGKILL); when a replica is told to end (SIGTERM), a client
loses none without retries. Every text equals that of the same request alone. nginx is Debian's.
"""

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx2
import openai
from checks import equal, run_all, true
from server import Server, status_of

CONFIGURATION = Path(__file__).parents[2] / "examples/serve/nginx.conf"
CLIENTS = 16
TOKENS = 96
PROMPTS = ["In the beginning", "And the LORD said unto Moses", "The sons of", "Blessed are", "And it came to pass"]


class Nginx:
    """nginx with the configuration of the examples, for replicas on this machine."""

    def __init__(self, replicas):
        self.replicas = replicas
        self.folder = tempfile.TemporaryDirectory(prefix="jetmoe-nginx-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"

    def __enter__(self):
        text = CONFIGURATION.read_text()
        addresses = iter(f"127.0.0.1:{port}" for port in self.replicas)
        text, replaced = re.subn(r"server 10\.0\.0\.\d:8080", lambda _: f"server {next(addresses)}", text)
        equal(replaced, len(self.replicas), "replicas in the configuration")
        text = text.replace("listen 80;", f"listen 127.0.0.1:{self.port};")
        paths = "".join(f"{kind}_temp_path {self.folder.name}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        text = text.replace("http {\n", f"http {{\n{paths}", 1)
        configuration = Path(self.folder.name) / "nginx.conf"
        configuration.write_text(text)
        user = "user root;" if os.geteuid() == 0 else ""
        globals_ = f"daemon off; pid {self.folder.name}/pid; error_log stderr warn; {user}"
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        true(program, "nginx is installed")
        self.process = subprocess.Popen(
            [program, "-p", self.folder.name, "-c", configuration, "-g", globals_], stderr=subprocess.PIPE, text=True, process_group=0
        )
        self.log = []
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()
        end = time.monotonic() + 20
        while status_of(self.url + "ready") != 200:
            true(time.monotonic() < end and self.process.poll() is None, f"nginx answers: {self.log}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


class Load:
    """Clients that ask, one request after the other, until they are told to end."""

    def __init__(self, url, expected, *, retries):
        self.url, self.expected, self.retries = url, expected, retries
        self.ending = threading.Event()
        self.answered, self.repeated, self.failures, self.wrong = 0, 0, [], []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._client, args=(number,), daemon=True) for number in range(CLIENTS)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join(120)
            true(not thread.is_alive(), "a client ends")

    def wait_for(self, answers):
        """Until so many more requests are answered."""
        end, until = time.monotonic() + 120, self.answered + answers
        while self.answered < until:
            true(time.monotonic() < end, f"{answers} more answers, {len(self.failures)} failures: {self.failures[:2]}")
            time.sleep(0.02)

    def _client(self, number):
        client = openai.OpenAI(base_url=self.url + "v1", api_key="none", max_retries=self.retries, timeout=60)
        turn = number
        while not self.ending.is_set():
            prompt = PROMPTS[turn % len(PROMPTS)]
            turn += 1
            try:
                text = self._ask(client, prompt, stream=turn % 2 == 0)
            except Exception as error:
                with self.lock:
                    self.failures.append(repr(error))
                continue
            with self.lock:
                self.answered += 1
                if text != self.expected[prompt]:
                    self.wrong.append((prompt, text))

    def _ask(self, client, prompt, stream):
        """A text. A stream that is cut is asked for again from its beginning, as the client's own retries do for the rest."""
        for attempt in range(self.retries + 1):
            try:
                return ask(client, prompt, stream)
            except (openai.APIConnectionError, openai.InternalServerError, httpx2.HTTPError, Cut):
                if attempt == self.retries:
                    raise
                with self.lock:
                    self.repeated += 1
                time.sleep(0.05 * 2**attempt)
        raise AssertionError("unreachable")


class Cut(Exception):
    """A stream that ended before its last event."""


def ask(client, prompt, stream):
    options = dict(model="mini", prompt=prompt, max_tokens=TOKENS, temperature=1, seed=9)
    if not stream:
        return client.completions.create(**options).choices[0].text
    text, finish = "", None
    for chunk in client.completions.create(**options, stream=True):
        text += chunk.choices[0].text
        finish = chunk.choices[0].finish_reason or finish
    if finish is None:
        raise Cut(f"after {text!r}")
    return text


def replica(arguments, port=0):
    return Server(arguments.jetmoe, {"mini": arguments.artifacts / "mini"}, slots=8, listen=f"127.0.0.1:{port}", threads=1)


def nothing_is_lost(arguments):
    with replica(arguments) as first, replica(arguments) as second, Nginx([first.port, second.port]) as nginx:
        alone = openai.OpenAI(base_url=first.url + "v1", api_key="none", max_retries=0)
        expected = {prompt: ask(alone, prompt, stream=False) for prompt in PROMPTS}
        port = second.port
        with Load(nginx.url, expected, retries=8) as load:
            load.wait_for(CLIENTS)
            second.process.kill()
            second.process.wait()
            load.wait_for(3 * CLIENTS)
            with replica(arguments, port) as again:
                load.wait_for(3 * CLIENTS)
                # nginx tries the replica again after fail_timeout
                end = time.monotonic() + 30
                while not any("/v1/completions" in line for line in again.lines):
                    true(time.monotonic() < end, "a request reaches the replica that was started again")
                    time.sleep(0.05)
        equal(load.failures, [], "requests that failed although the client retried")
        equal(load.wrong, [], "texts that differ from those of the request alone")
        true(load.repeated > 0, "streams of the killed replica were asked for again")
        killed = f"{load.answered} answered with a replica killed, {load.repeated} asked for again"
        with replica(arguments, port) as again, Load(nginx.url, expected, retries=0) as load:
            # nginx tries the replica again after fail_timeout
            time.sleep(2.5)
            load.wait_for(2 * CLIENTS)
            again.terminate()
            load.wait_for(2 * CLIENTS)
            equal(again.process.wait(30), 0, "the exit status of the replica that was told to end")
            load.wait_for(CLIENTS)
        equal(load.failures, [], "requests that failed without retries while a replica was told to end")
        equal(load.wrong, [], "texts that differ from those of the request alone")
    return f"{killed}; {load.answered} answered with a replica told to end, without retries"


def no_replica_is_said_in_the_servers_form(arguments):
    with replica(arguments) as only, Nginx([only.port, only.port]) as nginx:
        client = openai.OpenAI(base_url=nginx.url + "v1", api_key="none", max_retries=0)
        only.process.kill()
        only.process.wait()
        try:
            client.completions.create(model="mini", prompt="x")
            raise AssertionError("a request without a replica was answered")
        except openai.InternalServerError as error:
            equal((error.status_code, error.code, error.response.headers["retry-after"]), (503, "no_replica", "2"), "its error")


CHECKS = [nothing_is_lost, no_replica_is_said_in_the_servers_form]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("jetmoe", type=Path)
    arguments.add_argument("artifacts", type=Path)
    arguments = arguments.parse_args()
    run_all(CHECKS, arguments)
    print("two replicas behind nginx: passed")


if __name__ == "__main__":
    sys.exit(main())
