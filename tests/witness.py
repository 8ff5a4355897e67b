"""Sees query, key, mask and scale where the softmax is computed, by the module that runs, and knows nothing
of the library.
"""

from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch
from torch.nn import functional
from torch.nn.attention import flex_attention as flex

WRITTEN = (torch.Tensor, "softmax")
KERNELS = ((functional, "scaled_dot_product_attention"), (flex, "flex_attention"), WRITTEN)


@dataclass(frozen=True)
class Seen:
    """One softmax: the innermost module of the network that ran, its keys without masked ones, and the
    effective scale.
    """

    module: str
    queries: int
    keys: tuple[int, ...]
    scale: float
    output: torch.Tensor = field(repr=False, compare=False)


@contextmanager
def witness(network, replay=None):
    """A list that fills with the softmaxes of a network: of torch's kernels, and those written out.

    Where the calls of an earlier run are to be replayed, each gives what it gave then: what reaches any layer
    is what reached it then, so that its scale differs by what was done to this layer alone.
    """
    running, seen, plain = [], [], {where: getattr(*where) for where in KERNELS}
    handles, earlier = [], iter(replay or ())

    def left():
        running.pop()

    for name, module in network.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: running.append(name)))
        handles.append(module.register_forward_hook(lambda *_: left()))

    def noted(attend, queries, keys, scale):
        output = attend() if replay is None else next(earlier).output
        seen.append(Seen(running[-1], queries, keys, scale, output))
        return output

    def kernel(where):
        def attend(*args, **options):
            given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | options
            query, scale = given["query"], given.get("scale")
            if not running or query.is_meta:
                return plain[where](*args, **options)
            own = (query.shape[-1] ** -0.5 if scale is None else scale) * _length(query)
            keys = _kept(given.get("attn_mask"), query, given["key"])
            return noted(lambda: plain[where](*args, **options), query.shape[-2], keys, own)

        return attend

    def softmax(logits, *args, **options):
        if not running or logits.is_meta or logits.ndim < 3:
            return plain[WRITTEN](logits, *args, **options)
        return noted(
            lambda: plain[WRITTEN](logits, *args, **options),
            logits.shape[-2],
            tuple(logits.shape[-1:]),
            _length(logits),
        )

    with pytest.MonkeyPatch.context() as patch:
        for where in KERNELS:
            patch.setattr(*where, softmax if where is WRITTEN else kernel(where))
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def _length(values):
    return float(values.float().square().flatten(1).sum(1).mean().sqrt())


def _kept(mask, query, key):
    if mask is None:
        return (key.shape[-2],)
    seen = mask if mask.dtype.is_floating_point is False else mask > -1e4
    while seen.ndim < 4:
        seen = seen[None]
    counts = seen.any(1).any(1).expand(len(query), key.shape[-2]).sum(-1).tolist()
    return tuple(sorted(set(counts)))


def self_attention(narrow, wide):
    """Modules with a call both of whose queries and keys grow with the image: {module: keys at the wide
    size}.
    """
    sizes = {}
    for which, calls in enumerate((narrow, wide)):
        for call in calls:
            sizes.setdefault(call.module, [[], []])[which].append((call.queries, call.keys))
    grown = {
        name: {
            count
            for (few, less), (many, more) in zip(*both, strict=False)
            if few != many and less != more
            for count in more
        }
        for name, both in sizes.items()
    }
    return {name: keys for name, keys in grown.items() if keys}
