"""Generating and measuring: images of any size by any method, their entropy, and what it all costs.

    generation       `generate`, the one way to make an image
    methods          what to do about a size that the model was never trained on, by name
    multidiffusion   the whole image at once, each part seen through windows of native size
    from_native      an image of native size, made larger: resized, given finer pixels, or generated over
    rivals           the noise schedule of the size, another noise level, other positional information
    measurement      entropy and logits in tidy tables; `calibration_run` measures what rules need of a model
    costs            seconds, memory and the share of attention, each configuration in a fresh process

Knows pipelines, the patch and the probes; must not know a sweep, a notebook or a figure, nor any files but
its calibrations.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
