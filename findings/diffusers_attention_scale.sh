#!/usr/bin/env bash
# diffusers 0.42.1: an attention layer has an attribute `scale`, and its default processor does not read it.
#
# `AttnProcessor2_0`, which torch 2 selects, calls the fused kernel without a scale, so the kernel takes 1/sqrt(dim) whatever the attribute says: a
# layer whose `scale` is multiplied by ten gives the same numbers to the last bit. `AttnProcessor`, the plain one, does read it. A method that sets
# the attribute to rescale the softmax changes nothing, without an error. Multiply the query instead.
# Seen with: diffusers 0.42.1, torch 2.14.1, Python 3.11.
# Output seen:
#   AttnProcessor2_0: largest change 0.0
#   AttnProcessor: changed
# The script fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 diffusers==0.42.1
cat > "$folder/try.py" <<'PYTHON'
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

torch.manual_seed(0)
layer, hidden = Attention(query_dim=32, heads=2, dim_head=16).eval(), torch.randn(1, 64, 32)
usual, changes = layer.scale, {}
for processor in (AttnProcessor2_0(), AttnProcessor()):
    layer.set_processor(processor)
    outputs = []
    for factor in (1, 10):
        layer.scale = factor * usual
        with torch.no_grad():
            outputs.append(layer(hidden))
    changes[type(processor).__name__] = float((outputs[1] - outputs[0]).abs().max())
print(f"AttnProcessor2_0: largest change {changes['AttnProcessor2_0']}")
print(f"AttnProcessor: {'changed' if changes['AttnProcessor'] > 0.01 else 'the same'}")
assert changes["AttnProcessor2_0"] == 0 and changes["AttnProcessor"] > 0.01, "this has changed"
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
