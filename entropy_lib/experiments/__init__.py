"""Drawing and measuring: images from a pipeline, and entropy over sizes, rules and prompts in tidy tables.

Knows pipelines, the patch and the probes; must not know notebooks, files or figures.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
