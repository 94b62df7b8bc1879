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


async def complete(session, url, ids, new_tokens, arrivals=None):
    """The times at which the tokens of one completion arrive."""
    arrivals = [] if arrivals is None else arrivals
    body = {
        "model": "model", "prompt": ids, "max_tokens": new_tokens, "temperature": 0, "ignore_eos": True, "stream": True,
        "stream_options": {"include_usage": True},
    }
    used = None
    async with session.post(f"{url}/v1/completions", json=body) as response:
        if response.status != 200:
            sys.exit(f"status {response.status}: {await response.text()}")
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                sys.exit(f"an error in a stream: {chunk}")
            # a token may have no text yet, and is sent all the same
            if chunk.get("choices") and chunk["choices"][0].get("finish_reason") is None:
                arrivals.append(time.perf_counter())
            used = chunk.get("usage") or used
    if used is None or used["completion_tokens"] != new_tokens:
        sys.exit(f"{used} is not the usage of {new_tokens} new tokens")
    return arrivals


async def measure(url, arguments):
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=600)) as session:
        # what is allocated by the first steps
        await complete(session, url, prompt(0, arguments.prompt_tokens), 8)
        runs = [await load(session, url, streams, arguments) for streams in (1, arguments.streams)]
        return {"runs": runs, "interruption": await interrupt(session, url, arguments)}


async def load(session, url, streams, arguments):
    """Streams that begin together. The rate is that of the tokens while all of them decode."""
    all_arrivals = [[] for _ in range(streams)]
    before = [prompt(1 + streams + index, arguments.prompt_tokens) for index in range(streams)]
    started = time.perf_counter()
    steps = asyncio.create_task(steps_while_all_decode(session, url, all_arrivals, arguments.new_tokens))
    await asyncio.gather(
        *(complete(session, url, ids, arguments.new_tokens, arrivals) for ids, arrivals in zip(before, all_arrivals, strict=True))
    )
    begin, end = max(arrivals[0] for arrivals in all_arrivals), min(arrivals[-1] for arrivals in all_arrivals)
    counted = sum(begin < arrival <= end for arrivals in all_arrivals for arrival in arrivals)
    share = await steps
    return {
        "streams": streams,
        "tokens_per_second": counted / (end - begin),
        # from the first request to the last token, prompts included
        "all_tokens_per_second": streams * arguments.new_tokens / (max(arrivals[-1] for arrivals in all_arrivals) - started),
        "first_token_milliseconds": 1e3 * statistics.median(arrivals[0] - started for arrivals in all_arrivals),
        **({} if share is None else {"share_outside_of_steps": share}),
    }


async def steps_while_all_decode(session, url, all_arrivals, new_tokens):
    """The share of the time that is not spent in steps of the model, by the server's own metric; `None` if it has none."""
    async def metric():
        async with session.get(f"{url}/metrics") as response:
            text = await response.text()
        found = re.search(r"^jetmoe_engine_step_seconds_sum(?:\{[^}]*\})? ([0-9.e+-]+)$", text, re.MULTILINE)
        return time.perf_counter(), found and float(found[1])

    while any(len(arrivals) < 4 for arrivals in all_arrivals):
        await asyncio.sleep(0.005)
    begin, before = await metric()
    if before is None:
        return None
    while all(len(arrivals) < new_tokens - 8 for arrivals in all_arrivals):
        await asyncio.sleep(0.02)
    end, after = await metric()
    return 1 - (after - before) / (end - begin)


async def interrupt(session, url, arguments):
    """A long prompt arrives while the other streams decode: how long their tokens wait for each other."""
    others = [[] for _ in range(arguments.streams - 1)]
    tasks = [
        asyncio.create_task(complete(session, url, prompt(100 + index, arguments.prompt_tokens), arguments.new_tokens, arrivals))
        for index, arrivals in enumerate(others)
    ]
    while any(len(arrivals) < 4 for arrivals in others):
        await asyncio.sleep(0.005)
    started = time.perf_counter()
    first = (await complete(session, url, prompt(99, arguments.long_prompt), 2))[0]
    await asyncio.gather(*tasks)
    gaps = sorted(
        (after - before)
        for arrivals in others
        for before, after in zip(arrivals, arrivals[1:], strict=False)
        if before < first and after > started
    )
    if not gaps:
        sys.exit("the other streams ended before the long prompt was read; more new tokens are needed")
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
