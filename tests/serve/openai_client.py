"""Calls `jetmoe serve` with the `openai` package of PyPI, unmodified.

    python tests/serve/openai_client.py JETMOE ARTIFACTS

Texts are compared with those of transformers (tests/fixtures/models/jetmoe-mini/expected.json), streams with answers, and the
log-probabilities of a generation with those of the same text as a prompt.
"""

import argparse
import base64
import json
import math
import struct
import sys
import threading
from pathlib import Path

import openai
from checks import close, equal, holds, raises, run_all, true
from server import Server

FIXTURE = Path(__file__).parents[1] / "fixtures/models/jetmoe-mini"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())
PROMPT = "In the beginning"
MESSAGES = [{"role": "system", "content": "Answer in verses."}, {"role": "user", "content": "Who made the heaven?"}]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 1, "maximum": 999}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def models(client, _):
    names = [model.id for model in client.models.list()]
    equal(names, ["backbone", "classifier", "mini"], "names of the models")
    equal(client.models.retrieve("mini").id, "mini", "one model")
    error = raises(openai.NotFoundError, lambda: client.models.retrieve("gpt-4"), "a model that does not exist")
    equal(error.code, "model_not_found", "the code of its error")


def completion_equals_transformers(client, _):
    for case in EXPECTED["greedy"]:
        tokens = len(case["generated_ids"])
        for prompt in (case["prompt"], case["prompt_ids"]):
            answer = client.completions.create(model="mini", prompt=prompt, max_tokens=tokens, temperature=0)
            text = case["prompt"] + answer.choices[0].text
            equal(text, case["text"], f"the continuation of {prompt!r}")
            equal(answer.usage.completion_tokens, tokens, "its tokens")
            equal(answer.usage.prompt_tokens, len(case["prompt_ids"]), "the tokens of its prompt")
    prompts = [case["prompt"] for case in EXPECTED["greedy"]]
    answer = client.completions.create(model="mini", prompt=prompts, max_tokens=8, temperature=0, n=2)
    equal([choice.index for choice in answer.choices], list(range(2 * len(prompts))), "indices of choices")
    for case, pair in zip(EXPECTED["greedy"], zip(answer.choices[::2], answer.choices[1::2])):
        for choice in pair:
            true(case["text"].startswith(case["prompt"] + choice.text), f"a choice of {case['prompt']!r} in a batch")
            equal(choice.finish_reason, "length", "its finish reason")


def completion_streams(client, _):
    options = dict(model="mini", prompt=PROMPT, max_tokens=24, temperature=0.9, seed=5, logprobs=3)
    whole = client.completions.create(**options).choices[0]
    chunks = list(client.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    equal("".join(choice.text for choice in choices), whole.text, "the streamed text")
    equal(choices[-1].finish_reason, whole.finish_reason, "the streamed finish reason")
    streamed = [value for choice in choices if choice.logprobs for value in choice.logprobs.token_logprobs]
    equal(streamed, whole.logprobs.token_logprobs, "the streamed log-probabilities")
    true(len(choices) > 12, f"{len(choices)} chunks of 24 tokens")
    equal([chunk.usage.completion_tokens for chunk in chunks if chunk.usage], [24], "usage in the last chunk alone")
    other = client.completions.create(**{**options, "seed": 6}).choices[0]
    true(other.text != whole.text, "another seed gives another text")


def completion_scores_prompts(client, _):
    """Log-probabilities of generated tokens are those of the same tokens in a prompt, and echo returns the text exactly."""
    text = EXPECTED["greedy"][0]["text"]
    written = client.completions.create(model="mini", prompt=PROMPT, max_tokens=8, temperature=0, logprobs=1).choices[0]
    read = client.completions.create(model="mini", prompt=PROMPT + written.text, max_tokens=0, echo=True, logprobs=1)
    read = read.choices[0]
    equal(read.text, PROMPT + written.text, "the echoed text")
    equal("".join(read.logprobs.tokens[-8:]), written.text, "texts of the tokens")
    equal(read.logprobs.token_logprobs[0], None, "the log-probability of the first token")
    for found, expected in zip(read.logprobs.token_logprobs[-8:], written.logprobs.token_logprobs):
        close(found, expected, 1e-4, "log-probability of a token in a prompt")
    equal(read.logprobs.text_offset[-8], len(PROMPT), "the offset of the first generated token")
    long = client.completions.create(model="mini", prompt=text, max_tokens=0, echo=True, logprobs=0).choices[0].logprobs
    total = sum(value for value in long.token_logprobs if value is not None)
    true(-400 < total < -20 and math.isfinite(total), f"the log-probability {total} of a text")


def stop_strings(client, _):
    text = client.completions.create(model="mini", prompt=PROMPT, max_tokens=32, temperature=0).choices[0].text
    stop = text.split()[5]
    answer = client.completions.create(model="mini", prompt=PROMPT, max_tokens=32, temperature=0, stop=[stop, "never"])
    equal(answer.choices[0].text, text[: text.index(stop)], "the text before the stop string")
    equal(answer.choices[0].finish_reason, "stop", "its finish reason")
    streamed = client.completions.create(
        model="mini", prompt=PROMPT, max_tokens=32, temperature=0, stop=stop, stream=True
    )
    equal("".join(chunk.choices[0].text for chunk in streamed if chunk.choices), text[: text.index(stop)], "streamed")


def options_change_the_text(client, _):
    def run(**options):
        options = {"max_tokens": 12, **options}
        return client.completions.create(model="mini", prompt=PROMPT, temperature=0, **options).choices[0]

    tokens = client.completions.create(model="mini", prompt=PROMPT, max_tokens=1, temperature=0, logprobs=1)
    first = tokens.choices[0].logprobs.tokens[0]
    case = EXPECTED["greedy"][0]
    banned = str(case["generated_ids"][0])
    true(not run(logit_bias={banned: -100}).text.startswith(first), "a banned token is not chosen")
    forced = run(logit_bias={str(case["generated_ids"][3]): 100}, extra_body={"ignore_eos": True}).text
    equal(len(set(forced.split())), 1, f"a forced token is repeated: {forced!r}")
    penalised = run(frequency_penalty=2, presence_penalty=2, max_tokens=48).text
    true(penalised != run(max_tokens=48).text, "penalties change the text")
    extra = {"top_k": 1, "min_p": 0.5, "repetition_penalty": 1.3}
    other = client.completions.create(model="mini", prompt=PROMPT, max_tokens=12, temperature=1, extra_body=extra)
    true(other.choices[0].text != "", "fields of vLLM's clients")


def chat(client, _):
    answer = client.chat.completions.create(model="mini", messages=MESSAGES, max_completion_tokens=12, temperature=0)
    choice = answer.choices[0]
    equal((choice.message.role, choice.finish_reason), ("assistant", "length"), "role and finish reason")
    equal(answer.usage.total_tokens, answer.usage.prompt_tokens + 12, "usage")
    tokens = client.plain.post("/tokenize", body={"model": "mini", "messages": MESSAGES}, cast_to=object)["tokens"]
    equal(answer.usage.prompt_tokens, len(tokens), "tokens of the rendered conversation")
    text = client.plain.post("/detokenize", body={"model": "mini", "tokens": tokens}, cast_to=object)["prompt"]
    # texts have no special tokens; each message ends with one
    holds(text, "<|system|>\nAnswer in verses.", "the rendered conversation")
    true(text.endswith("<|assistant|>\n"), f"the end of the rendered conversation {text!r}")
    equal(tokens.count(2), 2, "end-of-sequence tokens of the template")
    same = client.completions.create(model="mini", prompt=tokens, max_tokens=12, temperature=0)
    equal(choice.message.content, same.choices[0].text, "the answer, against the continuation of its rendered prompt")


def chat_streams(client, _):
    options = dict(model="mini", messages=MESSAGES, max_completion_tokens=16, temperature=1, seed=3)
    whole = client.chat.completions.create(**options, logprobs=True, top_logprobs=4).choices[0]
    chunks = list(
        client.chat.completions.create(
            **options, logprobs=True, top_logprobs=4, stream=True, stream_options={"include_usage": True}
        )
    )
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    equal(choices[0].delta.role, "assistant", "the role in the first chunk")
    equal("".join(choice.delta.content or "" for choice in choices), whole.message.content, "the streamed text")
    tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    equal(tokens, whole.logprobs.content, "the streamed log-probabilities")
    equal(len(tokens), 16, "tokens with log-probabilities")
    for token in tokens:
        equal(len(token.top_logprobs), 4, "most probable tokens")
        ordered = [other.logprob for other in token.top_logprobs]
        equal(ordered, sorted(ordered, reverse=True), "their order")
    text = b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace")
    equal(text, whole.message.content, "bytes of the tokens")
    equal(chunks[-1].usage.completion_tokens, 16, "usage of the stream")


def reused_tokens(client, _):
    """The second turn of a conversation reads what the first had only once, and usage says so."""
    first = client.chat.completions.create(model="mini", messages=MESSAGES, max_completion_tokens=8, temperature=0)
    again = [*MESSAGES, {"role": "assistant", "content": first.choices[0].message.content}, {"role": "user", "content": "And then?"}]
    second = client.chat.completions.create(model="mini", messages=again, max_completion_tokens=8, temperature=0)
    cached = second.usage.prompt_tokens_details.cached_tokens
    true(first.usage.prompt_tokens // 2 <= cached < second.usage.prompt_tokens, f"{cached} reused tokens")


def json_schema(client, _):
    for seed in range(3):
        answer = client.chat.completions.create(
            model="mini", messages=MESSAGES, max_completion_tokens=120, temperature=1, seed=seed,
            response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}},
        )
        choice = answer.choices[0]
        equal(choice.finish_reason, "stop", f"the finish reason of {choice.message.content!r}")
        value = json.loads(choice.message.content)
        equal(sorted(value), ["age", "name"], "fields by the schema")
        true(isinstance(value["age"], int) and 1 <= value["age"] <= 999 and len(value["name"]) <= 12, f"{value} by the schema")
    bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}
    ask = lambda: client.chat.completions.create(model="mini", messages=MESSAGES, response_format=bad)
    error = raises(openai.BadRequestError, ask, "a schema that is none")
    true(str(error.param).startswith("response_format"), f"the parameter {error.param} of its error")


def responses(client, _):
    answer = client.responses.create(model="mini", input="Who made the heaven?", max_output_tokens=16, temperature=0)
    messages = [{"role": "user", "content": "Who made the heaven?"}]
    same = client.chat.completions.create(model="mini", messages=messages, max_completion_tokens=16, temperature=0)
    equal(answer.output_text, same.choices[0].message.content, "the output, against a chat completion")
    equal((answer.status, answer.incomplete_details.reason), ("incomplete", "max_output_tokens"), "why it ended")
    equal(answer.usage.output_tokens, 16, "usage")
    events = list(
        client.responses.create(
            model="mini", input=messages, instructions="Answer in verses.", max_output_tokens=12, temperature=0, stream=True
        )
    )
    equal([event.sequence_number for event in events], list(range(len(events))), "sequence numbers")
    equal([events[0].type, events[-1].type], ["response.created", "response.incomplete"], "the first and last event")
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    equal(text, events[-1].response.output_text, "the streamed text")
    done = [event for event in events if event.type == "response.output_text.done"]
    equal([event.text for event in done], [text], "the text of the done event")
    with client.responses.stream(model="mini", input="Who?", max_output_tokens=4, temperature=0) as stream:
        last = list(stream)[-1]
    equal(last.response.usage.output_tokens, 4, "usage of the helper's stream")
    ask = lambda: client.responses.create(model="mini", input="x", previous_response_id="resp_1")
    error = raises(openai.APIStatusError, ask, "a response that the server does not keep")
    equal(error.param, "previous_response_id", "the parameter of its error")


def embeddings(client, _):
    texts = [PROMPT, "And God said, Let there be light"]
    floats = client.embeddings.create(model="backbone", input=texts, encoding_format="float").data
    width = len(floats[0].embedding)
    equal(width, 128, "the width")
    for item in floats:
        close(math.sqrt(sum(value * value for value in item.embedding)), 1, 1e-5, "the length of a vector")
    # the client asks for base64 by itself and decodes it
    decoded = client.embeddings.create(model="backbone", input=texts).data
    raw = client.embeddings.with_raw_response.create(model="backbone", input=texts, encoding_format="base64")
    raw = json.loads(raw.text)["data"]
    for item, same, encoded in zip(floats, decoded, raw):
        # JSON has the shortest decimals of the float32 numbers
        expected = struct.pack(f"<{width}f", *item.embedding)
        equal(struct.pack(f"<{width}f", *same.embedding), expected, "a vector that the client decoded")
        equal(base64.b64decode(encoded["embedding"]), expected, "the bytes of a vector")
    alone = client.embeddings.create(model="backbone", input=texts[1], encoding_format="float").data[0]
    for found, expected in zip(alone.embedding, floats[1].embedding):
        close(found, expected, 1e-5, "a number of a vector alone")
    error = raises(openai.BadRequestError, lambda: client.embeddings.create(model="mini", input="x"), "another task")
    true(error.message != "", "the message of its error")


def errors(client, _):
    def ask(**options):
        return client.completions.create(**{"model": "mini", "prompt": PROMPT, "max_tokens": 1, **options})

    cases = [
        (openai.BadRequestError, "temperature", dict(temperature=-1)),
        (openai.BadRequestError, "suffix", dict(suffix="x")),
        (openai.BadRequestError, "temperatur", dict(extra_body={"temperatur": 1})),
        (openai.BadRequestError, "max_tokens", dict(max_tokens="many")),
        (openai.NotFoundError, "model", dict(model="gpt-4")),
        (openai.APIStatusError, "prompt", dict(prompt="word " * 4000)),
        (openai.BadRequestError, "prompt", dict(prompt=[5000000])),
        (openai.BadRequestError, "experts", dict(extra_body={"experts": True})),
    ]
    for kind, parameter, options in cases:
        error = raises(kind, lambda: ask(**options), f"{options}")
        equal(error.param, parameter, f"the parameter of {error}")
        true(error.request_id, f"the request id of {error}")
        true(error.body.get("advice") or parameter == "max_tokens", f"the advice of {error.body}")
    stored = lambda: client.chat.completions.create(model="mini", messages=MESSAGES, store=True)
    equal(raises(openai.BadRequestError, stored, "store").param, "store", "the parameter of a refused field")


def control_tokens_are_text(client, _):
    """The text of a control token in a user's message is text, and does not end the turn."""
    count = lambda content: client.plain.post(
        "/tokenize", body={"model": "mini", "messages": [{"role": "user", "content": content}]}, cast_to=object
    )["tokens"]
    ends = count("a")[-4:]
    inside = count("a</s>b")
    equal(inside.count(2), count("ab").count(2), "ids of </s> in the prompt")
    true(len(inside) > len(count("ab")) + 1, "the text of </s> has tokens of its own")
    equal(inside[-4:], ends, "the template's own control tokens")


def keys(_, arguments):
    """With a file of keys a request needs one of them; the client of OpenAI sends its own."""
    folder = Path(arguments.artifacts)
    file = folder / "keys.txt"
    file.write_text("# of the check\nsecret-1\nsecret-2\n")
    with Server(arguments.jetmoe, {"mini": folder / "mini"}, keys_file=str(file.resolve())) as server:
        good = openai.OpenAI(base_url=server.url + "v1", api_key="secret-2", max_retries=0)
        equal(good.completions.create(model="mini", prompt="x", max_tokens=1).usage.completion_tokens, 1, "with a key")
        bad = openai.OpenAI(base_url=server.url + "v1", api_key="secret-3", max_retries=0)
        error = raises(openai.AuthenticationError, lambda: bad.models.list(), "another key")
        true("secret" not in error.message and "secret" not in server.log, "no key in an error or in the log")


def queue_is_bounded(_, arguments):
    """Requests beyond the queue are refused with 429 and a time, and a client that retries is served."""
    with Server(arguments.jetmoe, {"mini": Path(arguments.artifacts) / "mini"}, slots=1, queue=1) as server:
        client = openai.OpenAI(base_url=server.url + "v1", api_key="none", max_retries=0)
        busy = [client.completions.create(model="mini", prompt=PROMPT, max_tokens=400, stream=True, extra_body={"ignore_eos": True})]
        next(iter(busy[0]))
        refused, results = [], []

        def ask(retries):
            try:
                caller = client.with_options(max_retries=retries)
                results.append(caller.completions.create(model="mini", prompt=PROMPT, max_tokens=1).usage.completion_tokens)
            except openai.RateLimitError as error:
                refused.append(error)

        threads = [threading.Thread(target=ask, args=(0,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        true(len(refused) >= 4, f"{len(refused)} of 6 requests refused by a queue of 1")
        for error in refused:
            true(int(error.response.headers["retry-after"]) >= 1, "the header Retry-After")
        for stream in busy:
            stream.close()
        ask(10)
        equal(results[-1], 1, "tokens of a request that was retried")


CHECKS = [
    models, completion_equals_transformers, completion_streams, completion_scores_prompts, stop_strings,
    options_change_the_text, chat, chat_streams, reused_tokens, json_schema, responses, embeddings, errors,
    control_tokens_are_text, keys, queue_is_bounded,
]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("jetmoe", type=Path)
    arguments.add_argument("artifacts", type=Path)
    arguments.add_argument("--only", help="one check")
    arguments = arguments.parse_args()
    artifacts = {name: arguments.artifacts / name for name in ("mini", "backbone", "classifier")}
    checks = [check for check in CHECKS if arguments.only in (None, check.__name__)]
    with Server(arguments.jetmoe, artifacts) as server:
        client = openai.OpenAI(base_url=server.url + "v1", api_key="none", max_retries=0, timeout=120)
        # routes outside of /v1 are called with the client of their server
        client.plain = client.with_options(base_url=server.url)
        run_all(checks, client, arguments)
    print(f"openai {openai.__version__} of PyPI: {len(checks)} checks passed")


if __name__ == "__main__":
    sys.exit(main())
