"""Compare onnxruntime-genai with `jetmoe run` and with transformers on an artifact. `cargo xtask interop` calls it.

usage: genai.py JETMOE ARTIFACT EXPECTED COMBINATIONS

EXPECTED is the expected.json of the artifact's checkpoint, COMBINATIONS the file that make_combinations.py wrote, whose first
case is this checkpoint as it is: what transformers computed. onnxruntime-genai must render the same chat prompt, encode it to
the same ids, and generate the same greedy texts and answers.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import telemetry  # noqa: F401
import onnxruntime_genai

NEW_TOKENS = 32
QUESTIONS = ["Who made the heaven?", "And who was Jacob?"]
# onnxruntime-genai 0.18 splits letters from punctuation before it merges, so it never makes a token such as "pass,". Tokenizers that
# SentencePiece trained, like Llama's, have no such tokens; that of jetmoe-mini has some.
SPLIT_BY_GENAI = {"And it came to pass, that when Jesus"}


class Client:
    """A model in onnxruntime-genai."""

    def __init__(self, artifact: pathlib.Path) -> None:
        self.model = onnxruntime_genai.Model(str(artifact))
        self.tokenizer = onnxruntime_genai.Tokenizer(self.model)

    def render(self, question: str) -> str:
        messages = json.dumps([{"role": "user", "content": question}])
        return self.tokenizer.apply_chat_template(messages=messages, add_generation_prompt=True)

    def encode(self, text: str, special: bool) -> list[int]:
        self.tokenizer.update_options(add_special_tokens="true" if special else "false")
        return [int(token) for token in self.tokenizer.encode(text)]

    def generate(self, prompt: list[int], new_tokens: int) -> list[int]:
        """Greedy: the settings of genai_config.json, up to a length."""
        parameters = onnxruntime_genai.GeneratorParams(self.model)
        parameters.set_search_options(max_length=len(prompt) + new_tokens)
        generator = onnxruntime_genai.Generator(self.model, parameters)
        generator.append_tokens(prompt)
        while not generator.is_done():
            generator.generate_next_token()
        return [int(token) for token in generator.get_sequence(0)][len(prompt) :]


def run(jetmoe: pathlib.Path, artifact: pathlib.Path, *arguments: str) -> dict:
    command = [str(jetmoe), "run", "--model", str(artifact), "--backend", "tract", "--format", "json"]
    command += ["--max-new-tokens", str(NEW_TOKENS), *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(what: str, found: object, expected: object) -> bool:
    if found == expected:
        return True
    print(f"{what}\n  onnxruntime-genai: {found!r}\n  expected:          {expected!r}")
    return False


def answers_like_transformers(client: Client, combinations: dict) -> bool:
    """The ids of the recorded conversation, and the greedy answer to it, are those of transformers."""
    unchanged = combinations["cases"][0]
    assert unchanged["edits"] == [], "the first case edits nothing"
    recorded = unchanged["transformers"]["chat"]
    (message,) = combinations["conversation"]
    ids = client.encode(client.render(message["content"]), special=False)
    answer = client.generate(ids, len(recorded["tokens"]))
    return compare("chat of transformers", {"ids": ids, "tokens": answer}, recorded)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jetmoe", type=pathlib.Path)
    parser.add_argument("artifact", type=pathlib.Path)
    parser.add_argument("expected", type=pathlib.Path)
    parser.add_argument("combinations", type=pathlib.Path)
    arguments = parser.parse_args()
    expected = json.loads(arguments.expected.read_text())
    client = Client(arguments.artifact)
    results = []
    rendered = expected["chat_template"]["rendered"]
    questions = [message["content"] for message in expected["chat_template"]["messages"] if message["role"] == "user"]
    results.append(compare("chat prompt of transformers", client.render(questions[-1]), rendered))
    results.append(answers_like_transformers(client, json.loads(arguments.combinations.read_text())))
    for question in QUESTIONS:
        ours = run(arguments.jetmoe, arguments.artifact, "--chat", "--prompt", question)
        prompt = client.render(question)
        results.append(compare(f"chat prompt: {question}", prompt, ours["prompt"]))
        ids = client.encode(prompt, special=False)
        results.append(compare(f"ids of the chat prompt: {question}", ids, ours["prompt_token_ids"]))
        tokens = client.generate(ours["prompt_token_ids"], NEW_TOKENS)
        results.append(compare(f"answer: {question}", tokens, ours["token_ids"]))
    for greedy in expected["greedy"]:
        ours = run(arguments.jetmoe, arguments.artifact, "--prompt", greedy["prompt"])
        ids = client.encode(greedy["prompt"], special=True)
        if greedy["prompt"] in SPLIT_BY_GENAI:
            # fails once it agrees, so that the list stays true
            results.append(compare(f"ids differ: {greedy['prompt']}", ids == ours["prompt_token_ids"], False))
        else:
            results.append(compare(f"ids: {greedy['prompt']}", ids, ours["prompt_token_ids"]))
        tokens = client.generate(ours["prompt_token_ids"], NEW_TOKENS)
        results.append(compare(f"text: {greedy['prompt']}", tokens, greedy["generated_ids"][:NEW_TOKENS]))
        results.append(compare(f"jetmoe run: {greedy['prompt']}", tokens, ours["token_ids"]))
    print(f"onnxruntime-genai {onnxruntime_genai.__version__}: {sum(results)} of {len(results)} comparisons agree")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
