"""Sees query, key, mask and scale where the softmax kernel is called, by the module that runs, and knows nothing of the library."""

from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from torch.nn import functional

KERNEL = "scaled_dot_product_attention"


@dataclass(frozen=True)
class Seen:
    """One kernel call: the innermost module of the network that ran, its keys without masked ones, and the effective scale."""

    module: str
    queries: int
    keys: tuple[int, ...]
    scale: float


@contextmanager
def witness(network):
    """A list that fills with the kernel calls of a network."""
    running, seen, plain = [], [], getattr(functional, KERNEL)
    handles = []

    def left():
        running.pop()

    for name, module in network.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: running.append(name)))
        handles.append(module.register_forward_hook(lambda *_: left()))

    def kernel(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **options):
        if running and not query.is_meta:
            length = query.float().square().sum((-1, -2, 1)).mean().sqrt()
            own = float((query.shape[-1] ** -0.5 if scale is None else scale) * length)
            seen.append(Seen(running[-1], query.shape[-2], _kept(attn_mask, query, key), own))
        return plain(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, KERNEL, kernel)
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def _kept(mask, query, key):
    if mask is None:
        return (key.shape[-2],)
    seen = mask if mask.dtype.is_floating_point is False else mask > -1e4
    while seen.ndim < 4:
        seen = seen[None]
    counts = seen.any(1).any(1).expand(len(query), key.shape[-2]).sum(-1).tolist()
    return tuple(sorted(set(counts)))


def self_attention(narrow, wide):
    """Modules both of whose queries and keys grow with the picture: {module: keys at the wide size}."""
    sizes = {}
    for which, calls in enumerate((narrow, wide)):
        for call in calls:
            sizes.setdefault(call.module, [[], []])[which].append((call.queries, call.keys))
    return {
        name: {count for _, keys in second for count in keys}
        for name, (first, second) in sizes.items()
        if first and second and first[0][0] != second[0][0] and first[0][1] != second[0][1]
    }
