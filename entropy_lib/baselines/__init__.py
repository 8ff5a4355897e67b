"""Other methods to make an image of a size that the model was never trained on, to compare the rules with.

Knows diffusers, and how this library generates; must not know a sweep or a notebook.

    methods         all of them by name
    multidiffusion  the whole image at once, each part seen through windows of native size
    from_native     an image of native size, made larger: resized, given finer pixels, or generated over
    rivals          the noise schedule of the size, another noise level told to the network, other positional information
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
