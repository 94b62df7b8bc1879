"""Calls the Open Inference Protocol of `jetmoe serve` with `tritonclient[http]` and `kserve`, unmodified.

    python tests/serve/infer_clients.py JETMOE ARTIFACTS

Tensors in JSON and in binary give the same bits, and the most probable tokens are those of the same model's completions.
"""

import argparse
import asyncio
import json
import sys
import urllib.request
from pathlib import Path

import kserve
import numpy as np
import tritonclient.http as triton
from checks import equal, holds, raises, run_all, true
from server import Server

FIXTURE = Path(__file__).parents[1] / "fixtures/models/jetmoe-mini"
CASE = json.loads((FIXTURE / "expected.json").read_text())["greedy"][0]
IDS = np.array([CASE["prompt_ids"] + CASE["generated_ids"][:-1]], dtype=np.int64)
NEW = len(CASE["generated_ids"])


def triton_client(server):
    return triton.InferenceServerClient(url=f"127.0.0.1:{server.port}")


def infer(server, model, ids, *, binary, mask=None):
    """The first output of a model for token ids, by tritonclient."""
    tensors = {"input_ids": ids} | ({} if mask is None else {"attention_mask": mask})
    inputs = []
    for name, value in tensors.items():
        tensor = triton.InferInput(name, list(value.shape), "INT64")
        tensor.set_data_from_numpy(value, binary_data=binary)
        inputs.append(tensor)
    with triton_client(server) as client:
        metadata = client.get_model_metadata(model)
        name = metadata["outputs"][0]["name"]
        outputs = [triton.InferRequestedOutput(name, binary_data=binary)]
        return client.infer(model, inputs, outputs=outputs).as_numpy(name)


def triton_health_and_metadata(server):
    with triton_client(server) as client:
        equal((client.is_server_live(), client.is_server_ready()), (True, True), "the server's health")
        equal(client.is_model_ready("mini"), True, "a model that is ready")
        equal(client.is_model_ready("gpt-4"), False, "a model that does not exist")
        metadata = client.get_server_metadata()
        holds(metadata["extensions"], "binary_tensor_data", "extensions of the server")
        metadata = client.get_model_metadata("mini")
        inputs = {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in metadata["inputs"]}
        equal(inputs["input_ids"], ("INT64", [-1, -1]), "the input of token ids")
        outputs = {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in metadata["outputs"]}
        equal(outputs["logits"], ("FP32", [-1, -1, 2048]), "the output of logits")
        error = raises(triton.InferenceServerException, lambda: client.get_model_metadata("gpt-4"), "no such model")
        holds(str(error), "gpt-4", "the error of a model that does not exist")


def triton_infers_in_binary_and_json(server):
    logits = infer(server, "mini", IDS, binary=True)
    equal(logits.shape, (1, IDS.shape[1], 2048), "the shape of the logits")
    chosen = logits[0].argmax(axis=1)[-NEW:].tolist()
    equal(chosen, CASE["generated_ids"], "the most probable tokens, against transformers'")
    in_json = infer(server, "mini", IDS, binary=False)
    true(np.array_equal(logits, in_json), "logits in JSON are those in binary, bit for bit")


def triton_infers_other_tasks(server):
    pair = np.array([[1, 367, 308], [1, 593, 0]], dtype=np.int64)
    mask = np.array([[1, 1, 1], [1, 1, 0]], dtype=np.int64)
    states = infer(server, "backbone", pair, binary=True, mask=mask)
    equal((states.shape, states.dtype), ((2, 3, 128), np.float32), "hidden states of a batch")
    alone = infer(server, "backbone", pair[1:, :2], binary=True)
    true(np.allclose(states[1, :2], alone[0], atol=1e-5), "a padded row of the batch, against the row alone")
    classes = infer(server, "classifier", pair[:1], binary=True)
    equal(classes.shape, (1, 2), "logits of the classes")
    ids = triton.InferInput("input_ids", [1, 3], "INT64")
    ids.set_data_from_numpy(pair[:1])
    with triton_client(server) as client:
        # without a list of outputs all come, in binary
        true(np.array_equal(client.infer("classifier", [ids]).as_numpy("logits"), classes), "default outputs")
        pending = [client.async_infer("classifier", [ids]) for _ in range(4)]
        for request in pending:
            true(np.array_equal(request.get_result().as_numpy("logits"), classes), "an asynchronous request")


def triton_continues_text(server):
    text = triton.InferInput("text_input", [1], "BYTES")
    text.set_data_from_numpy(np.array([CASE["prompt"].encode()], dtype=np.object_))
    with triton_client(server) as client:
        answer = client.infer("mini", [text], parameters={"max_tokens": 16, "temperature": 0})
    written = CASE["prompt"] + answer.as_numpy("text_output")[0].decode().removeprefix(CASE["prompt"])
    true(len(written) > len(CASE["prompt"]) + 20 and CASE["text"].startswith(written), f"{written!r}, against transformers'")


def triton_errors(server):
    def ask(name, datatype, array):
        tensor = triton.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        with triton_client(server) as client:
            return client.infer("mini", [tensor])

    cases = [
        ("input_ids", "INT32", IDS.astype(np.int32), "INT32"),
        ("input_id", "INT64", IDS, "input_id"),
        ("input_ids", "INT64", np.array([[5_000_000]]), "5000000"),
        ("input_ids", "INT64", np.array([[-1]]), "-1"),
        ("input_ids", "INT64", np.zeros((1, 0), dtype=np.int64), "shape"),
    ]
    for name, datatype, array, part in cases:
        error = raises(triton.InferenceServerException, lambda: ask(name, datatype, array), f"{name} {datatype} {array.shape}")
        holds(str(error), part, "the message of its error")


def generate(server):
    """The routes of the generate extension, whole and as a stream."""
    body = {"text_input": CASE["prompt"], "parameters": {"max_tokens": NEW, "temperature": 0}}
    status, _, whole = server.post("v2/models/mini/generate", body)
    equal(status, 200, "its status")
    written = whole["text_output"].removeprefix(CASE["prompt"])
    equal(CASE["prompt"] + written, CASE["text"], "the generated text, against transformers'")
    request = urllib.request.Request(server.url + "v2/models/mini/generate_stream", json.dumps(body).encode())
    with urllib.request.urlopen(request) as response:
        events = [json.loads(line[6:]) for line in response.read().decode().splitlines() if line.startswith("data: {")]
    equal("".join(event["text_output"] for event in events), written, "the streamed text")
    true(len(events) > NEW // 2, f"{len(events)} events of {NEW} tokens")


def kserve_client(server):
    async def call():
        client = kserve.InferenceRESTClient(kserve.inference_client.RESTConfig(protocol="v2"))
        async with client:
            base = server.url.rstrip("/")
            equal(await client.is_server_ready(base), True, "kserve: the server is ready")
            equal(await client.is_server_live(base), True, "kserve: the server is live")
            equal(await client.is_model_ready(base, "mini"), True, "kserve: the model is ready")
            equal(await client.is_model_ready(base, "gpt-4"), False, "kserve: a model that does not exist")
            results = []
            for binary in (False, True):
                tensor = kserve.InferInput("input_ids", list(IDS.shape), "INT64")
                tensor.set_data_from_numpy(IDS, binary_data=binary)
                request = kserve.InferRequest("mini", [tensor])
                response = await client.infer(base, request, model_name="mini")
                results.append(response.outputs[0].as_numpy().reshape(1, IDS.shape[1], -1))
            return results

    in_json, in_binary = asyncio.run(call())
    true(np.array_equal(in_json, in_binary), "kserve: logits in JSON are those in binary, bit for bit")
    equal(in_json[0].argmax(axis=1)[-NEW:].tolist(), CASE["generated_ids"], "kserve: the most probable tokens")


CHECKS = [
    triton_health_and_metadata, triton_infers_in_binary_and_json, triton_infers_other_tasks, triton_continues_text,
    triton_errors, generate, kserve_client,
]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("jetmoe", type=Path)
    arguments.add_argument("artifacts", type=Path)
    arguments = arguments.parse_args()
    artifacts = {name: arguments.artifacts / name for name in ("mini", "backbone", "classifier")}
    with Server(arguments.jetmoe, artifacts) as server:
        run_all(CHECKS, server)
    print(f"tritonclient and kserve: {len(CHECKS)} checks passed")


if __name__ == "__main__":
    sys.exit(main())
