"""Runs guidellm, unmodified, against `jetmoe serve`, and prints what it measures.

    python tests/serve/benchmark.py JETMOE ARTIFACTS FOLDER [--requests 64] [--streams 4,16]

No number is compared: the machine of CI is shared. Every request must be answered, with the requested number of tokens.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from checks import equal, true
from server import Server

FIXTURE = Path(__file__).parents[1] / "fixtures/models/jetmoe-mini"
PROMPT_TOKENS = 64
OUTPUT_TOKENS = 32


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("jetmoe", type=Path)
    arguments.add_argument("artifacts", type=Path)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--requests", type=int, default=64, help="requests of every benchmark")
    arguments.add_argument("--streams", default="4,16", help="numbers of concurrent requests, one benchmark each")
    arguments = arguments.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "benchmarks.json"
    data = {"prompt_tokens": PROMPT_TOKENS, "output_tokens": OUTPUT_TOKENS}
    with Server(arguments.jetmoe, {"mini": arguments.artifacts / "mini"}, slots=16) as server:
        command = [
            Path(sys.executable).with_name("guidellm"), "benchmark", "run", "--target", server.url.rstrip("/"), "--model", "mini",
            "--processor", FIXTURE, "--data", json.dumps(data), "--rate-type", "concurrent", "--rate", arguments.streams,
            "--max-requests", str(arguments.requests), "--output-path", output, "--disable-progress", "--random-seed", "1",
            "--disable-console-outputs",
        ]
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"guidellm ended with status {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    for benchmark in json.loads(output.read_text())["benchmarks"]:
        report(benchmark, arguments.requests)


def report(benchmark, requests):
    total = benchmark["run_stats"]["requests_made"]
    equal((total["successful"], total["errored"], total["incomplete"]), (requests, 0, 0), "requests that were answered, failed, cut")
    for request in benchmark["requests"]["successful"]:
        equal(request["output_tokens"], OUTPUT_TOKENS, "tokens of an answer")
    metrics = benchmark["metrics"]
    value = lambda name: metrics[name]["successful"]
    streams = value("request_concurrency")["mean"]
    true(streams > 0, "requests at the same time")
    print(
        f"guidellm, {streams:.1f} streams: {value('output_tokens_per_second')['mean']:.0f} tokens per second, time to first token "
        f"{value('time_to_first_token_ms')['percentiles']['p50']:.0f} ms, between tokens "
        f"{value('inter_token_latency_ms')['percentiles']['p50']:.1f} ms (medians)"
    )


if __name__ == "__main__":
    sys.exit(main())
