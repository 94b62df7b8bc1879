"""Starts `jetmoe serve` and runs openai_client.mjs, which calls it with the `openai` package of npm.

    python tests/serve/node_client.py JETMOE ARTIFACTS PACKAGES
"""

import argparse
import subprocess
import sys
from pathlib import Path

from server import Server


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("jetmoe", type=Path)
    arguments.add_argument("artifacts", type=Path)
    arguments.add_argument("packages", type=Path, help="the folder in which package.json is installed")
    arguments = arguments.parse_args()
    artifacts = {name: arguments.artifacts / name for name in ("mini", "backbone")}
    with Server(arguments.jetmoe, artifacts) as server:
        script = Path(__file__).with_name("openai_client.mjs")
        return subprocess.run(["node", script, arguments.packages, server.url]).returncode


if __name__ == "__main__":
    sys.exit(main())
