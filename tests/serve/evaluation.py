"""Scores held-out text on `jetmoe serve` with lm-evaluation-harness, unmodified, and compares with `jetmoe eval`.

    python tests/serve/evaluation.py JETMOE ARTIFACTS FOLDER

Writes a task, its text and its results to FOLDER. The task also has multiple choices, whose answers are counted.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from checks import close, equal, true
from server import Server

FIXTURE = Path(__file__).parents[1] / "fixtures/models/jetmoe-mini"
LINES = 12
# longest prompt and continuation: the model has 512 positions
LONGEST = 1200

ROLLING = """\
task: held_out
dataset_path: json
dataset_kwargs:
  data_files:
    test: {text}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: byte_perplexity
metadata:
  version: 1.0
"""

# which of two verses follows: the one that does, or the same one with its words in reverse order
CHOICE = """\
task: next_verse
dataset_path: json
dataset_kwargs:
  data_files:
    test: {choices}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{verse}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
target_delimiter: "\\n"
metric_list:
  - metric: acc
metadata:
  version: 1.0
"""


def write_task(folder):
    """The task and its data. Returns the file of the texts."""
    chapters = [json.loads(line) for line in (FIXTURE / "eval.jsonl").read_text().splitlines()]
    texts, choices = [], []
    for index, chapter in enumerate(chapters[:LINES]):
        verses = chapter["text"].split("\n")
        text = ""
        for verse in verses:
            if len(text) + len(verse) + 1 > LONGEST:
                break
            text += verse + "\n"
        texts.append({"text": text.rstrip("\n")})
        reversed_ = " ".join(reversed(verses[1].split()))
        label = index % 2
        pair = [verses[1], reversed_] if label == 0 else [reversed_, verses[1]]
        choices.append({"verse": verses[0], "choices": pair, "label": label})
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("texts", texts), ("choices", choices)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "held_out.yaml").write_text(ROLLING.format(text=json.dumps(str(folder / "texts.jsonl"))))
    (folder / "next_verse.yaml").write_text(CHOICE.format(choices=json.dumps(str(folder / "choices.jsonl"))))
    return folder / "texts.jsonl"


def evaluate(server, folder):
    """The results and samples of lm-evaluation-harness."""
    output = folder / "results"
    model = (
        f"model=mini,base_url={server.url}v1/completions,num_concurrent=4,max_retries=1,tokenized_requests=True,"
        f"tokenizer={FIXTURE},tokenizer_backend=huggingface,max_length=512"
    )
    command = [
        sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", model, "--tasks",
        "held_out,next_verse", "--include_path", str(folder), "--output_path", str(output), "--log_samples",
    ]
    # nothing is looked up or loaded from a hub
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home"), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"lm_eval ended with status {done.returncode}:\n{done.stdout}\n{done.stderr[-4000:]}")
    results = json.loads(latest(output, "results_*.json").read_text())["results"]
    samples = [json.loads(line) for line in latest(output, "samples_held_out_*.jsonl").read_text().splitlines()]
    return results, samples


def latest(folder, pattern):
    found = sorted(folder.rglob(pattern), key=lambda path: path.stat().st_mtime)
    true(found, f"{pattern} in {folder}")
    return found[-1]


def jetmoe_eval(arguments, file):
    command = [
        arguments.jetmoe, "eval", "--model", arguments.artifacts / "mini", "--text", file, "--window", "512", "--format", "json"
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["results"][0]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("jetmoe", type=Path)
    arguments.add_argument("artifacts", type=Path)
    arguments.add_argument("folder", type=Path)
    arguments = arguments.parse_args()
    folder = arguments.folder.resolve()
    texts = write_task(folder)
    with Server(arguments.jetmoe, {"mini": arguments.artifacts / "mini"}) as server:
        results, samples = evaluate(server, folder)
    equal(len(samples), LINES, "scored texts")
    by_line = {sample["doc"]["text"]: float(sample["filtered_resps"][0]) for sample in samples}
    scores = by_line.values()
    expected = jetmoe_eval(arguments, texts)
    total = -expected["negative_log_likelihood"] * expected["predicted_tokens"]
    close(sum(scores) / expected["predicted_tokens"], total / expected["predicted_tokens"], 1e-4, "log-likelihood per token")
    single = folder / "one.jsonl"
    worst = 0
    for line in texts.read_text().splitlines():
        single.write_text(line + "\n")
        alone = jetmoe_eval(arguments, single)
        difference = abs(by_line[json.loads(line)["text"]] + alone["negative_log_likelihood"] * alone["predicted_tokens"])
        worst = max(worst, difference / alone["predicted_tokens"])
    true(worst <= 1e-4, f"log-likelihood per token of every text differs by at most 1e-4, found {worst:.2e}")
    accuracy = results["next_verse"]["acc,none"]
    true(accuracy >= 0.9, f"{accuracy} of the verses are told from their words in reverse")
    print(
        f"lm-evaluation-harness: {LINES} texts of {expected['predicted_tokens']} tokens, log-likelihood per token differs by at "
        f"most {worst:.1e} from `jetmoe eval`; {accuracy:.0%} of the multiple choices are right"
    )


if __name__ == "__main__":
    sys.exit(main())
