#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.15.0: AttentionMaskVisualizer puts the labels of other tokens at its rows.
# A good guess: row i of the picture is the token that it names. Seen: the labels are the text's tokens without special ones
# (`tokenize`), and the mask is that of the encoded text with them. Where the tokenizer puts a begin-of-sequence token in front, every
# label is one row too early, and the last token of the text has no row. With the token left out both agree.
# The model is a configuration and a tokenizer of a few words; the visualizer reads no weights and needs no network.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 torch==2.15.0 pillow numpy

cat >"$work/show.py" <<'P'
import contextlib, io, re, sys
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, PreTrainedTokenizerFast
from transformers.utils import attention_visualizer as visualizer

folder, begin = sys.argv[1], sys.argv[2] == "begin"
words = ["<s>", "a", "b", "c"]
tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="a"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
if begin:
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)
LlamaConfig(vocab_size=4, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(folder)

masks = []
draw = visualizer.generate_attention_matrix_from_mask
def record(tokens, mask, **options):
    masks.append(mask)
    return draw(tokens, mask, **options)
visualizer.generate_attention_matrix_from_mask = record
with contextlib.redirect_stdout(io.StringIO()) as output:
    visualizer.AttentionMaskVisualizer(folder)("a b c")
rows = re.findall(r"^\s*(?:\x1b\[\d+m)*\s*'?(\w+)'?(?:\x1b\[\d+m)*\s*: +(\d+) ", output.getvalue(), re.M)
ids = tokenizer.encode("a b c").ids
labels = " ".join(label for label, _ in rows)
print(f"tokens {' '.join(words[index] for index in ids)}; rows of the mask {masks[0].shape[-1]}; labels of the rows {labels}")
P
found=$(for kind in begin plain; do
    HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/show.py" "$work/$kind" "$kind" 2>/dev/null
done)
expected='tokens <s> a b c; rows of the mask 4; labels of the rows a b c
tokens a b c; rows of the mask 3; labels of the rows a b c'
printf '%s\n' "$found"
diff <(printf '%s\n' "$expected") <(printf '%s\n' "$found") || { echo "the behaviour changed" >&2; exit 1; }
