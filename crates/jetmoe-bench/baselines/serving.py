"""Measures a server of OpenAI's API under load. Prints one JSON object.

`cargo xtask bench --serving` calls it, once per server and round. Both servers get the same requests, as token ids: streams of greedy
completions, one or several at the same time, and a long prompt that arrives while others decode.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import aiohttp

VOCABULARY = 32000
START_SECONDS = 120
# tokens of a prompt that are read in one step, for both servers
CHUNK = 256


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", choices=["jetmoe", "llama-server"], required=True)
    parser.add_argument("--program", type=Path, required=True, help="the server")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--long-prompt", type=int, default=2000)
    arguments = parser.parse_args()
    with started(arguments) as url:
        measured = asyncio.run(measure(url, arguments))
    print(json.dumps({"runtime": version(arguments), **measured}))


def version(arguments):
    said = subprocess.run([arguments.program, "--version"], capture_output=True, text=True, check=True)
    # llama-server writes to standard error, after lines about devices
    number = re.search(r"version: (.+)|^jetmoe (.+)", said.stdout + said.stderr, re.MULTILINE)
    return f"{arguments.target} {next(filter(None, number.groups())) if number else '(unknown version)'}"


@contextlib.contextmanager
def started(arguments):
    """A server of one model on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    capacity = max(arguments.prompt_tokens + arguments.new_tokens, arguments.long_prompt + 64)
    program, model, threads = arguments.program.resolve(), arguments.model.resolve(), str(arguments.threads)
    if arguments.target == "jetmoe":
        settings = {
            "backend": '"ort"', "threads": threads, "slots": arguments.streams, "capacity": capacity,
            "prefill_chunk": CHUNK, "prefix_bytes": 0,
        }
        command = [program, "serve", "--listen", f"127.0.0.1:{port}", "--model", f"model={model}"]
        command += [f"--set=models.model.{key}={value}" for key, value in settings.items()]
    else:
        command = [
            program, "--model", model, "--host", "127.0.0.1", "--port", str(port), "--threads", threads, "--threads-batch", threads,
            "--parallel", str(arguments.streams), "--ctx-size", str(capacity * arguments.streams), "--batch-size", str(CHUNK),
            "--ubatch-size", str(CHUNK), "--no-webui", "--alias", "model", "--no-warmup",
        ]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + START_SECONDS
            while status_of(f"{url}/health") != 200 or status_of(f"{url}/v1/models") != 200:
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    sys.exit(f"{arguments.target} does not start: status {process.returncode}\n{log.read()[-4000:]}")
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait(60)


def status_of(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def prompt(seed, tokens):
    """Ids without those that are special or bytes, another sequence for every seed."""
    ids = random.Random(seed)
    return [ids.randrange(1000, VOCABULARY) for _ in range(tokens)]


class Stream:
    """One completion: when its events arrive, and when it ends."""

    def __init__(self, seed, prompt_tokens, new_tokens, every_token=False):
        self.new_tokens = new_tokens
        self.arrivals = []
        self.end = None
        self.body = {
            "model": "model", "prompt": prompt(seed, prompt_tokens), "max_tokens": new_tokens, "temperature": 0, "ignore_eos": True,
            "stream": True, "stream_options": {"include_usage": True},
        }
        if every_token:
            # an event for every token, also where its bytes are no text yet
            self.body["logprobs"] = 1

    async def run(self, session, url):
        used = None
        async with session.post(f"{url}/v1/completions", json=self.body) as response:
            if response.status != 200:
                sys.exit(f"status {response.status}: {await response.text()}")
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                self.arrivals.append(time.perf_counter())
                # parsing every event would take time that the server could use on the same processor
                if b'"error":' in line or b'"prompt_tokens":' in line:
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        sys.exit(f"an error in a stream: {chunk}")
                    used = chunk.get("usage") or used
        self.end = time.perf_counter()
        if used is None or used["completion_tokens"] != self.new_tokens:
            sys.exit(f"{used} is not the usage of {self.new_tokens} new tokens")
        return self

    @property
    def rate(self):
        """Tokens per second after the first one."""
        return (self.new_tokens - 1) / (self.arrivals[-1] - self.arrivals[0])


async def measure(url, arguments):
    limits = {"connector": aiohttp.TCPConnector(limit=0, force_close=True), "timeout": aiohttp.ClientTimeout(total=600)}
    async with aiohttp.ClientSession(**limits) as session:
        # what is allocated by the first steps
        await Stream(0, arguments.prompt_tokens, 8).run(session, url)
        runs = [await load(session, url, count, arguments) for count in (1, arguments.streams)]
        return {"runs": runs, "interruption": await interrupt(session, url, arguments)}


async def load(session, url, count, arguments):
    """Streams that begin together."""
    streams = [Stream(1 + count + index, arguments.prompt_tokens, arguments.new_tokens) for index in range(count)]
    started = time.perf_counter()
    share = asyncio.create_task(share_outside_of_steps(session, url, streams))
    await asyncio.gather(*(stream.run(session, url) for stream in streams))
    share = await share
    return {
        "streams": count,
        # while all of them decode
        "tokens_per_second": sum(stream.rate for stream in streams),
        # from the first request to the last token, prompts included
        "all_tokens_per_second": count * arguments.new_tokens / (max(stream.arrivals[-1] for stream in streams) - started),
        "first_token_milliseconds": 1e3 * statistics.median(stream.arrivals[0] - started for stream in streams),
        **({} if share is None else {"share_outside_of_steps": share}),
    }


async def share_outside_of_steps(session, url, streams):
    """The share of the time in which the model computes nothing, by the server's own metrics, while all streams decode; `None` if it
    has none."""
    async def metrics():
        async with session.get(f"{url}/metrics") as response:
            text = await response.text()
        names = ("between_steps", "step")
        found = [re.search(rf"^jetmoe_engine_{name}_seconds_sum(?:\{{[^}}]*\}})? ([0-9.e+-]+)$", text, re.MULTILINE) for name in names]
        return [float(sum[1]) for sum in found] if all(found) else None

    while not all(stream.arrivals for stream in streams):
        await asyncio.sleep(0.005)
    begin = end = await metrics()
    if begin is None:
        return None
    while not any(stream.end for stream in streams):
        end = await metrics()
        await asyncio.sleep(0.05)
    outside, inside = (after - before for before, after in zip(begin, end, strict=True))
    return outside / (outside + inside)


async def interrupt(session, url, arguments):
    """A long prompt arrives while the other streams decode: how long their tokens wait for each other."""
    others = [Stream(100 + index, arguments.prompt_tokens, arguments.new_tokens, True) for index in range(arguments.streams - 1)]
    running = [asyncio.create_task(stream.run(session, url)) for stream in others]
    while not all(stream.arrivals for stream in others):
        await asyncio.sleep(0.005)
    started = time.perf_counter()
    first = (await Stream(99, arguments.long_prompt, 2, True).run(session, url)).arrivals[0]
    if any(stream.end and stream.end < first for stream in others):
        sys.exit("a stream ended before the long prompt was read; more new tokens are needed")
    await asyncio.gather(*running)
    pairs = [pair for stream in others for pair in zip(stream.arrivals, stream.arrivals[1:], strict=False)]
    gaps = sorted(after - before for before, after in pairs if before < first and after > started)
    chunk = (first - started) / -(-arguments.long_prompt // CHUNK)
    worst = gaps[min(len(gaps) - 1, int(0.99 * len(gaps)))]
    return {
        "prompt_tokens": arguments.long_prompt,
        "first_token_milliseconds": 1e3 * (first - started),
        "chunk_milliseconds": 1e3 * chunk,
        "median_gap_milliseconds": 1e3 * statistics.median(gaps),
        "p99_gap_milliseconds": 1e3 * worst,
        "p99_gap_in_chunks": worst / chunk,
    }


if __name__ == "__main__":
    main()
