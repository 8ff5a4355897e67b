"""What entropy is: row entropy and the shape of logits, exactly, from query and key, without the N x N map.

Knows tensors and the laws of `theory`; must not know whose attention it is, nor that diffusers exists.
"""
