"""The scale patch: rules, written as one string, and what puts one into a model and takes it out again.

Knows rules, calibrations that they go by, and where a network's queries are; must not know what is measured
or generated with it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
