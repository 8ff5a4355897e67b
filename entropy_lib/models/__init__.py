"""Which models there are and what they look like: catalogue, exact architectures, networks, layers, weights.

Knows diffusers; must not know what is done with a model.
"""
