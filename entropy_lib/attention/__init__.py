"""What entropy is: row entropy and the shape of logits, exactly, from query and key, without the N x N map.

`entropy` has the two functions to read first, `kernels` what makes them cheap, `logit_shape` how far logits are from Gaussian.
Knows tensors and the laws of `theory`; must not know whose attention it is, nor that diffusers exists. What cannot be used is
refused by InvalidInputError.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
