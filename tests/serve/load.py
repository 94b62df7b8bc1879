"""Sends 64 streams at once to `jetmoe serve`: nothing is lost, and each text equals that of the same request alone, bit for bit.

    python tests/serve/load.py JETMOE ARTIFACTS [--minutes 30]

Requests differ in route, prompt, length, sampling and seed. Every round sends all of them at once, in another order, and some are
left in the middle. The memory of the server does not grow. With --minutes it goes on for so long.
"""

import argparse
import asyncio
import json
import random
import re
import sys
import time
from pathlib import Path

import aiohttp
import psutil
from checks import equal, run_all, true
from server import Server

FIXTURE = Path(__file__).parents[1] / "fixtures/models/jetmoe-mini"
STREAMS = 64
ROUNDS = 4
MEBIBYTE = 1 << 20


def requests():
    """64 requests: routes and bodies."""
    random_ = random.Random(64)
    chapters = [json.loads(line)["text"] for line in (FIXTURE / "eval.jsonl").read_text().splitlines()]
    made = []
    for index in range(STREAMS):
        words = random_.choice(chapters).split()
        start = random_.randrange(len(words) // 2)
        # short prompts, and long ones that are read in several chunks; some share their beginning
        text = " ".join(words[start : start + random_.choice([1, 8, 40, 150])])
        if index % 4 == 0:
            text = " ".join(chapters[0].split()[: 20 + index])
        tokens = random_.choice([1, 4, 16, 48, 64])
        sampling = random_.choice([{"temperature": 0}, {"temperature": 1, "seed": index}, {"temperature": 0.7, "top_p": 0.9, "seed": index, "top_k": 40}])
        body = {"model": "mini", **sampling, "stream": True, "stream_options": {"include_usage": True}}
        if index % 3 == 0:
            body |= {"messages": [{"role": "user", "content": text}], "max_completion_tokens": tokens, "logprobs": True, "top_logprobs": 2}
            made.append(("v1/chat/completions", body))
        else:
            made.append(("v1/completions", body | {"prompt": text, "max_tokens": tokens, "logprobs": 2}))
    return made


async def ask(session, server, request, leave_after=None):
    """Everything a stream says of its text: texts, tokens, log-probabilities, finish reason, usage. `None` if it was left."""
    route, body = request
    said, complete = [], False
    async with session.post(server.url + route, json=body) as response:
        equal(response.status, 200, f"the status of {body}")
        async for line in response.content:
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                complete = True
                break
            chunk = json.loads(line[6:])
            true("error" not in chunk, f"{chunk} in the stream of {body}")
            for choice in chunk["choices"]:
                text = choice.get("text") if "text" in choice else choice["delta"].get("content")
                said.append((text, choice["finish_reason"], json.dumps(choice.get("logprobs"))))
                if leave_after is not None and len(said) >= leave_after:
                    return None
            if chunk.get("usage"):
                said.append(chunk["usage"]["completion_tokens"])
    true(complete, f"the stream of {body} is complete")
    return said


def client():
    # as many connections as streams
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=600))


async def alone(server, made):
    async with client() as session:
        return [await ask(session, server, request) for request in made]


async def together(server, made, expected, seed):
    """All at once. A quarter of the clients leaves in the middle."""
    random_ = random.Random(seed)
    order = list(range(len(made)))
    random_.shuffle(order)
    leaving = {index: random_.randrange(1, 6) for index in order[: len(order) // 4]}

    async def one(session, index):
        await asyncio.sleep(random_.random() * 0.2)
        return index, await ask(session, server, made[index], leaving.get(index))

    async with client() as session:
        answers = await asyncio.gather(*(one(session, index) for index in order))
    compared = 0
    for index, answer in answers:
        if answer is not None:
            equal(answer, expected[index], f"the stream of {made[index]} among others")
            compared += 1
    return compared


def memory(server):
    return psutil.Process(server.pid).memory_info().rss / MEBIBYTE


def gauge(server, name):
    """The sum of a metric over its labels."""
    values = re.findall(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+-]+)$", server.get("metrics"), re.MULTILINE)
    true(values, f"{name} is among the metrics")
    return sum(float(value) for value in values)


def every_text_equals_its_solo_run(server, arguments):
    made = requests()
    expected = asyncio.run(alone(server, made))
    again = asyncio.run(alone(server, made))
    equal(again, expected, "the same requests alone, again, with prefixes kept from the first time")
    end = time.monotonic() + 60 * arguments.minutes
    sizes, rounds, compared = [], 0, 0
    while rounds < ROUNDS or time.monotonic() < end:
        compared += asyncio.run(together(server, made, expected, seed=rounds))
        sizes.append(memory(server))
        rounds += 1
    # what the first rounds bring into memory stays: buffers of the largest batch, kept prefixes
    half = len(sizes) // 2
    before, after = max(sizes[:half]), max(sizes[half:])
    true(after <= before + max(24, 0.05 * before), f"memory grows: {before:.0f} to {after:.0f} MiB in {rounds} rounds, {sizes}")
    return f"{rounds} rounds of {STREAMS} streams, {compared} compared, memory {before:.0f} to {after:.0f} MiB"


def everything_is_free_afterwards(server, _):
    # the request for the metrics is one itself
    expected = {"jetmoe_http_requests_in_flight": 1, "jetmoe_engine_requests_running": 0, "jetmoe_engine_requests_waiting": 0}
    deadline = time.monotonic() + 10
    while (found := {name: gauge(server, name) for name in expected}) != expected:
        true(time.monotonic() < deadline, f"after 10 s {found} are {expected}")
        time.sleep(0.1)
    files = psutil.Process(server.pid).num_fds()
    true(files < 64 + STREAMS, f"{files} open files after the streams ended")


def throughput(server, _):
    """Printed, not compared: the machine of CI is shared."""
    body = {"model": "mini", "max_tokens": 128, "temperature": 0, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
    rates = []
    for streams in (1, 16):
        made = [("v1/completions", body | {"prompt": f"{number} And"}) for number in range(streams)]

        async def run():
            async with client() as session:
                return await asyncio.gather(*(ask(session, server, request) for request in made))

        start = time.perf_counter()
        asyncio.run(run())
        rates.append(f"{streams} streams {128 * streams / (time.perf_counter() - start):.0f} tokens/s")
    return ", ".join(rates)


CHECKS = [every_text_equals_its_solo_run, everything_is_free_afterwards, throughput]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("jetmoe", type=Path)
    arguments.add_argument("artifacts", type=Path)
    arguments.add_argument("--minutes", type=float, default=0, help="how long, after the first rounds")
    arguments.add_argument("--backend", help="ort or tract")
    arguments = arguments.parse_args()
    backend = {} if arguments.backend is None else {"backend": arguments.backend}
    with Server(arguments.jetmoe, {"mini": arguments.artifacts / "mini"}, slots=16, prefill_chunk=64, **backend) as server:
        run_all(CHECKS, server, arguments)
    print(f"{STREAMS} streams at once: passed")


if __name__ == "__main__":
    sys.exit(main())
