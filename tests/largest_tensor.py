"""Watches the size of what torch makes."""

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LargestTensor(TorchDispatchMode):
    """Remembers in `elements` the number of elements of the largest tensor of some kind that is made."""

    def __init__(self, counts):
        super().__init__()
        self.counts, self.elements = counts, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        made = (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        self.elements = max([self.elements, *(leaf.numel() for leaf in made if self.counts(leaf))])
        return result
