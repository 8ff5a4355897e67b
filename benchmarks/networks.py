"""Every network class of the installed diffusers: what patch and probe do with it. Writes docs/models.md.

    python benchmarks/networks.py

Each class is built from its default configuration, less deep, on the meta device, and traced there; nothing
is computed. Whether what is traced is what happens is tried on tiny networks with numbers in
tests/models/test_every_network.py.
"""

import inspect
import sys
import warnings
from collections import Counter

import diffusers
import torch

from entropy_lib.errors import EntropyLibError
from entropy_lib.files import ROOT
from entropy_lib.models.layers import native_latent_size
from entropy_lib.models.networks import config_of
from entropy_lib.models.trace import structure

sys.path.insert(0, str(ROOT / "tests"))
from tiny_networks import DEPTH, OWN, classes, tiny

PAGE = ROOT / "docs" / "models.md"
HEAD = """# Networks of diffusers {version}

Written by `python benchmarks/networks.py`: every network class of the installed diffusers that denoises.
*Works*: patch and probes know its self-attention; {tried} classes are compared with an independent witness at
the softmax kernel by `tests/models/test_every_network.py` (marked ✓). *Refused*: with an error that says so;
most can be learnt from one call of their pipeline (`entropy_lib.models.networks.recording`). *Not built*:
neither its default configuration nor a tiny one holds together. T is "asked for" where the configuration does
not say the native size: give `latent_size`.

{counts}.

| network | | self-attention | T | why |
|---|---|---|---|---|
"""


def built(name, kind):
    """Of the default configuration, less deep; of the tests' tiny one where that does not hold together."""
    accepted = inspect.signature(kind.__init__).parameters
    config = {
        key: value
        for key, value in DEPTH.items()
        if isinstance(getattr(accepted.get(key), "default", None), int)
    }
    try:
        with torch.device("meta"):
            return kind(**config)
    except Exception:  # classes without defaults raise whatever they like
        if name not in OWN:
            raise
        return tiny(name)


def row(name, kind):
    try:
        network = built(name, kind)
    except Exception as error:  # classes without defaults raise whatever they like
        return "not built", "", "", f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    try:
        attention = structure(kind, config_of(network)).attention
    except EntropyLibError as error:
        return "refused", "", "", str(error).split("pipe(...)` (", 1)[1].rsplit(")", 1)[0][:160]
    found = Counter(each.attends for each in attention.values() if each.is_self or each.attends == "frames")
    if not any(name.startswith("image") for name in found):
        return "refused", "", "", "no self-attention that ends at a softmax kernel"
    try:
        size = "config, {} x {}".format(*native_latent_size(network))
    except EntropyLibError:
        size = "asked for"
    return "works" + (" ✓" if name in OWN else ""), ", ".join(found), size, ""


def main():
    warnings.simplefilter("ignore")
    rows = {name: row(name, kind) for name, kind in classes().items()}
    states = Counter(state.split(" ✓")[0] for state, *_ in rows.values())
    counts = f"{len(rows)} classes: " + ", ".join(f"{count} {state}" for state, count in states.most_common())
    lines = [
        f"| {name} | " + " | ".join(part.replace("|", "/") for part in parts) + " |"
        for name, parts in rows.items()
    ]
    PAGE.write_text(
        HEAD.format(version=diffusers.__version__, tried=len(OWN), counts=counts) + "\n".join(lines) + "\n",
        encoding="utf-8",
    )
    print(counts)


if __name__ == "__main__":
    main()
