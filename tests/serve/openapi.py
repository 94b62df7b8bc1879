"""Makes requests by the OpenAPI document of `jetmoe serve` with schemathesis: no server error, no undocumented status.

    python tests/serve/openapi.py JETMOE ARTIFACTS FOLDER [--examples 40]

Valid and invalid requests to every route, by a fixed seed. A failed run leaves its report in FOLDER.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from checks import equal, holds, true
from server import Server

# bodies are not compared with their types: schemathesis compares the events of streams, whose data OpenAPI 3.1 has no words for
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance"


def check_document(document):
    true(document["openapi"].startswith("3.1"), f"the version {document['openapi']}")
    routes = {
        "/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/classify", "/rerank", "/tokenize",
        "/detokenize", "/v1/models", "/health", "/ready", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready",
    }
    equal(sorted(routes - set(document["paths"])), [], "routes that the document lacks")
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in ("get", "post"):
                true(operation.get("summary") or operation.get("description"), f"{method} {path} is described")
                true(operation["responses"], f"{method} {path} has responses")


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("jetmoe", type=Path)
    arguments.add_argument("artifacts", type=Path)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--examples", type=int, default=40, help="requests of every route and phase")
    arguments.add_argument("--seed", type=int, default=1)
    arguments = arguments.parse_args()
    arguments.folder = arguments.folder.resolve()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    artifacts = {name: arguments.artifacts / name for name in ("mini", "backbone", "classifier")}
    # short answers, and an end of every request, so that a random number of tokens does not take the time of the check
    limits = {"max_tokens": 8, "request_seconds": 20, "sequences": 8, "body_bytes": 1 << 20}
    with Server(arguments.jetmoe, artifacts, limits=limits) as server:
        check_document(json.loads(server.get("openapi.json")))
        command = [
            Path(sys.executable).with_name("schemathesis"), "run", server.url + "openapi.json", "--checks", CHECKS,
            "--phases", "examples,coverage,fuzzing", "--max-examples", str(arguments.examples), "--seed", str(arguments.seed),
            "--request-timeout", "60", "--continue-on-failure", "--warnings", "off", "--generation-database", "none",
            "--report", "ndjson,junit", "--report-dir", arguments.folder, "--no-color",
        ]
        # it writes what it keeps into the current folder
        done = subprocess.run(command, capture_output=True, text=True, cwd=arguments.folder)
        output = arguments.folder / "schemathesis.txt"
        output.write_text(done.stdout + done.stderr)
        equal(server.process.poll(), None, "the exit status of the server")
        panics = [line for line in server.lines if "panicked" in line]
        equal(panics, [], "panics in the log")
        if done.returncode != 0:
            raise AssertionError(f"schemathesis ended with status {done.returncode}; all of it is in {output}:\n{done.stdout[-6000:]}")
        equal(server.post("v1/completions", {"model": "mini", "prompt": "x", "max_tokens": 1})[0], 200, "a request after all")
    holds(done.stdout, "passed", "what schemathesis says")
    print("\n".join(line for line in done.stdout.splitlines()[-12:] if line.strip()))


if __name__ == "__main__":
    sys.exit(main())
