"""Generating and measuring: images from a pipeline, entropy over sizes, rules and prompts in tidy tables, calibrations of a model.

Knows pipelines, the patch and the probes; must not know notebooks or figures, nor any files but its calibrations.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
