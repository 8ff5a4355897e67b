"""Metric tables: images to features, and feature matrices to numbers with intervals.

Knows images, feature networks and `statistics`; must not know which model generated an image, nor under
which rule.

A feature matrix is `[n, d]`, one row an image, numpy or torch, in any floating type; all arithmetic is in
float64, on the device of the features. Some rows are read at a time, so that nothing grows with the number of
images but the feature matrix. The names in `__init__.pyi` are imported on first use: `import
entropy_lib.metrics` itself loads nothing heavy.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
