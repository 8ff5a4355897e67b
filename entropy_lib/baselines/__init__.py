"""Other ways to a picture of a size that the model was never trained on, to compare the rules with.

Knows diffusers, and how this library draws; must not know a sweep or a notebook.

    windows         which windows cover a picture
    multidiffusion  the whole picture at once, each part seen through windows of native size
    from_native     a picture of native size, made larger: resized, or drawn over
    super_resolution  …or given more pixels
    noise_level     the schedule of the size, or another noise level told to the network
    padding         another code of position
    methods         all of them by name, behind one signature
    measurement     entropy while any of them draws
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
