"""Measures transformers in bfloat16, and the bandwidth of the card's memory, as one JSON object.

    python3 peer.py CHECKPOINT cuda 1,8,32 128,512
"""

import argparse
import json
import statistics
import time

import torch
import transformers

REPETITIONS, NEW_TOKENS = 4, 16


def copy_bandwidth(device):
    """Bytes read and written per second by a copy inside the device's memory."""
    source = torch.empty((1 << 30) if device == "cuda" else (1 << 26), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(6):
        seconds.append(timed(device, lambda: target.copy_(source))[0])
    return 2 * source.numel() / statistics.median(seconds[1:])


def timed(device, action):
    """Seconds of an action until the device is done, and its result."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    started = time.perf_counter()
    result = action()
    synchronize()
    return time.perf_counter() - started, result


def measure(model, device, batch, prompt):
    """Median milliseconds of a prompt and of a step after it; the first repetition is the warm-up."""
    prefills, steps = [], []
    for repetition in range(REPETITIONS):
        ids = torch.randint(5, model.config.vocab_size, (batch, prompt), device=device)
        seconds, out = timed(device, lambda: model(ids, use_cache=True, logits_to_keep=1))
        decoded = []
        for _ in range(NEW_TOKENS):
            ids, past = out.logits[:, -1:].argmax(-1), out.past_key_values
            taken, out = timed(device, lambda: model(ids, past_key_values=past, use_cache=True))
            decoded.append(taken)
        if repetition > 0:
            prefills.append(seconds)
            steps.extend(decoded)
    return {
        "batch": batch,
        "prompt": prompt,
        "prefill_ms": round(1e3 * statistics.median(prefills), 3),
        "step_ms": round(1e3 * statistics.median(steps), 4),
    }


def main():
    numbers = lambda text: [int(number) for number in text.split(",")]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("device", choices=("cuda", "cpu"))
    parser.add_argument("batches", type=numbers)
    parser.add_argument("prompts", type=numbers)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    found = {"torch": torch.__version__, "transformers": transformers.__version__}
    found["copy_bytes_per_second"] = copy_bandwidth(arguments.device)
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.checkpoint, dtype=torch.bfloat16)
    model = model.to(arguments.device).eval()
    with torch.inference_mode():
        found["runs"] = [
            measure(model, arguments.device, batch, prompt) for batch in arguments.batches for prompt in arguments.prompts
        ]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
