"""Every network and pipeline class of the installed diffusers: what patch and probe do with it. Writes
docs/models.md.

    python -m benchmarks.networks

Each network is built from its default configuration, less deep, on the meta device, and traced there; nothing
is computed. Whether what is traced is what happens is tried on tiny networks with numbers in
tests/models/test_every_network.py. Of a pipeline it is said what is said of its network.
"""

import inspect
import re
import sys
import warnings
from collections import Counter

import diffusers
import torch

from entropy_lib.errors import EntropyLibError
from entropy_lib.files import ROOT
from entropy_lib.models.catalogue import CATALOGUE
from entropy_lib.models.layers import native_latent_size
from entropy_lib.models.networks import config_of
from entropy_lib.models.trace import structure

sys.path.insert(0, str(ROOT / "tests"))
from tiny_networks import DEPTH, OWN, classes, tiny

PAGE = ROOT / "docs" / "models.md"
HEAD = """# Networks of diffusers {version}

Written by `python -m benchmarks.networks`, which is also how to ask for a new release of diffusers.

## Models by name

`el.load(name)`; `random_weights=True, device="meta"` builds the architecture alone. Memory is a rule of thumb
for one image at native size in two bytes a parameter. A revision that could not be verified is not pinned:
the Hub's main branch is loaded then, unless `revision=` is given. Steps and guidance of the models newer than
FLUX.1 are the defaults of their pipelines. `terrain` comes from PyPI ([more](layers.md)).

| name | repository | native size | T | denoiser | memory | steps, guidance | licence | revision |
|---|---|---|---|---|---|---|---|---|
{models}

## Networks

Every network class that denoises. *Works*: patch and probes know its self-attention; {tried} classes are
compared with an independent witness at the softmax kernel by `tests/models/test_every_network.py` (marked ✓).
*Refused*: with an error that says so. Where a class is unknown, or is called in a way that its signature and
configuration do not say, one call of its pipeline with a prompt alone is looked at, which ends where the
network begins; of pipelines that need more, and of networks by themselves,
`entropy_lib.models.recording.recording` looks at a call of yours. *Not built*: neither its default
configuration nor a tiny one holds together. T is "asked for" where the configuration does not say the native
size: give `latent_size`, for videos with frames before height and width where frames are to count in T. Rules
act on what attends to the image, with or without text; `attends` narrows that, and widens it to attention
over frames. Attention over text alone, which has no size to be trained at, and across is left alone.

{counts}.

| network | | self-attention | T | why |
|---|---|---|---|---|
{networks}

## Pipelines

By the network that each denoises with (`unet` or `transformer`), as its constructor names it. Where a
pipeline has two of a class (`transformer_2`), or its networks have other names, hand them over one by one:
`el.apply_scale(pipe.transformer_2, "paper", latent_size=…)`.

{pipelines}
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
    """Of one network: what becomes of it, what its layers attend to, whence T, and why it is refused."""
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


def pipelines(states):
    """Lines of pipelines, by what becomes of the network that their constructors ask for."""
    found = {}
    for name in dir(diffusers):
        kind = getattr(diffusers, name, None) if name.endswith("Pipeline") else None
        module = getattr(kind, "__module__", "")
        if not inspect.isclass(kind) or not module.startswith("diffusers.pipelines."):
            continue
        parts = inspect.signature(kind.__init__).parameters
        asked = [str(parts[part].annotation) for part in ("unet", "transformer") if part in parts]
        network = next((each for each in states if asked and re.search(rf"\b{each}\b", asked[0])), None)
        state = states[network].removesuffix(" ✓") if network else "its networks by themselves"
        found.setdefault(state, []).append(f"{name} ({network})" if network else name)
    lines = [f"- **{state}** ({len(names)}): {', '.join(names)}" for state, names in sorted(found.items())]
    return "\n".join(reversed(lines))


def models():
    """Lines of the catalogue's models of the Hub."""
    lines = []
    for name, each in CATALOGUE.items():
        if "/" in each.source:
            cells = [
                name, each.source, "{} x {}".format(*each.native_size), ", ".join(map(str,
                                                                                      each.training_tokens)),
                f"{each.parameters / 1000:.2f} B", f"{each.memory_gb():.0f} GB", f"{each.steps}, "
                f"{each.guidance}",
                each.licence + (" (gated)" if each.gated else ""), (each.revision or "")[:8] or "not pinned",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    warnings.simplefilter("ignore")
    rows = {name: row(name, kind) for name, kind in classes().items()}
    states = Counter(state.split(" ✓")[0] for state, *_ in rows.values())
    counts = f"{len(rows)} classes: " + ", ".join(f"{count} {state}" for state, count in states.most_common())
    lines = [
        f"| {name} | " + " | ".join(part.replace("|", "/") for part in parts) + " |"
        for name, parts in rows.items()
    ]
    page = HEAD.format(
        version=diffusers.__version__, models=models(), tried=len(OWN), counts=counts,
        networks="\n".join(lines), pipelines=pipelines({name: parts[0] for name, parts in rows.items()}),
    )  # fmt: skip
    PAGE.write_text(page, encoding="utf-8")
    print(counts)


if __name__ == "__main__":
    main()
