#!/usr/bin/env bash
# torch 2.14.1: allowing bfloat16 products on the CPU makes the reading of a setting of the GPU fail.
#
# `torch.backends.mkldnn.fp32_precision = "bf16"` sets the precision of every backend, not of oneDNN alone: `torch.backends.fp32_precision` is "bf16"
# afterwards. And `torch.backends.cudnn.allow_tf32`, which answers before, raises a RuntimeError, so any library that saves and restores the
# older switch fails after that line. Read and write `fp32_precision` of each operator (`cudnn.conv`, `cudnn.rnn`, `cuda.matmul`) instead.
# Seen with: torch 2.14.1, Python 3.11; no GPU is needed.
# Output seen:
#   before: cudnn.allow_tf32 True, fp32_precision none
#   after: cudnn.allow_tf32 RuntimeError, fp32_precision bf16
# The script fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1
cat > "$folder/try.py" <<'PYTHON'
import torch


def answer():
    try:
        older = torch.backends.cudnn.allow_tf32
    except RuntimeError as error:
        older = type(error).__name__
    return f"cudnn.allow_tf32 {older}, fp32_precision {torch.backends.fp32_precision}"


before = answer()
torch.backends.mkldnn.fp32_precision = "bf16"
after = answer()
print(f"before: {before}\nafter: {after}")
assert before == "cudnn.allow_tf32 True, fp32_precision none", "this has changed"
assert after == "cudnn.allow_tf32 RuntimeError, fp32_precision bf16", "this has changed"
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
