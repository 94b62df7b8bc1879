#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.15.0: JetMoE's `router_logits` has the logits of every attention router twice.
# A good guess: a layer has two routers, so two layers have four entries, and `aux_loss` weighs all routers alike. Seen: six
# entries, of which each pair from attention is one tensor twice, so that attention counts double in `aux_loss`. The loss over
# the four routers is another one.
# The model has random weights and needs no network.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 torch==2.15.0 numpy

cat >"$work/count.py" <<'P'
import torch
from transformers import JetMoeConfig, JetMoeForCausalLM
from transformers.models.jetmoe.modeling_jetmoe import load_balancing_loss_func

torch.manual_seed(0)
sizes = dict(vocab_size=32, hidden_size=16, num_hidden_layers=2, num_key_value_heads=2, kv_channels=8, intermediate_size=16)
config = JetMoeConfig(num_local_experts=4, num_experts_per_tok=2, **sizes)
model = JetMoeForCausalLM(config).eval()
with torch.no_grad():
    output = model(torch.arange(1, 9).reshape(1, 8), output_router_logits=True)
logits = output.router_logits
repeated = [i for i in range(len(logits)) if any(torch.equal(logits[i], other) for other in logits[:i])]
once = tuple(entry for i, entry in enumerate(logits) if i not in repeated)
difference = output.aux_loss - load_balancing_loss_func(once, 4, 2)
print(f"2 layers, {len(logits)} entries, repeated {repeated}; aux_loss as over the others: {bool(abs(difference) < 1e-6)}")
P
found=$(HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/count.py" 2>/dev/null)
expected='2 layers, 6 entries, repeated [1, 4]; aux_loss as over the others: False'
printf '%s\n' "$found"
diff <(printf '%s\n' "$expected") <(printf '%s\n' "$found") || { echo "the behaviour changed" >&2; exit 1; }
