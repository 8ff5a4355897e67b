#!/usr/bin/env bash
# statsmodels 0.15.0: `multipletests(method="holm")` makes a full collection of garbage at each call.
#
# Its branch for Holm's step-down ends with `gc.collect()`; Bonferroni's and Hochberg's do not. What a correction of five p-values costs
# therefore grows with the number of Python objects that the process holds, which have nothing to do with it. In a process that had
# imported torch and diffusers, code that corrects many small tables, one a call, spent three quarters of its time there (4.5 of 6
# seconds). Correct them in one call where that is possible.
# Seen with: statsmodels 0.15.0, Python 3.11.
# Output seen:
#   full collections in ten calls: holm 10, bonferroni 0, simes-hochberg 0
# The script fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q statsmodels==0.15.0
cat > "$folder/try.py" <<'PYTHON'
import gc

from statsmodels.stats.multitest import multipletests

METHODS = ("holm", "bonferroni", "simes-hochberg")


def collections(method):
    """How many full collections ten corrections make, none of which the interpreter would have begun."""
    gc.disable()
    before = gc.get_stats()[2]["collections"]
    for _ in range(10):
        multipletests([0.01, 0.02, 0.03, 0.04, 0.5], method=method)
    return gc.get_stats()[2]["collections"] - before


found = [collections(method) for method in METHODS]
print("full collections in ten calls:", ", ".join(f"{name} {count}" for name, count in zip(METHODS, found)))
assert found == [10, 0, 0], "this has changed"
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
