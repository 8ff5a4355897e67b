#!/usr/bin/env bash
# torch 2.14.1: each call of `torch.utils._pytree.tree_flatten`, and so of `tree_map`, leaves seven objects for the garbage collector.
#
# The function that it calls for the children of a node is defined inside it and refers to itself, so it is part of a cycle that no count of
# references frees. A hook that flattens the arguments of every call of a network thereby starts collections, which are long where
# many objects live. `tree_leaves` gives the same leaves and leaves nothing.
# Seen with: torch 2.14.1, Python 3.11; no GPU is needed.
# Output seen:
#   tree_flatten 700, tree_map 700, tree_leaves 0
# which are the objects that a collection finds after a hundred calls. The script fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1
cat > "$folder/try.py" <<'PYTHON'
import gc

from torch.utils._pytree import tree_flatten, tree_leaves, tree_map


def left(work):
    gc.collect()
    gc.disable()
    for _ in range(100):
        work([1, [2]])
    found = gc.collect()
    gc.enable()
    return found


ways = {"tree_flatten": tree_flatten, "tree_map": lambda tree: tree_map(abs, tree), "tree_leaves": tree_leaves}
assert tree_leaves([1, [2]]) == tree_flatten([1, [2]])[0] == [1, 2]
said = ", ".join(f"{name} {left(way)}" for name, way in ways.items())
print(said)
assert said == "tree_flatten 700, tree_map 700, tree_leaves 0", "this has changed"
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
