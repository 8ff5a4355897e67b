"""Metric tables: images to features, and feature matrices to numbers with intervals.

Knows images, feature networks and `statistics`; must not know which model generated an image, nor under
which rule.

    catalogue    METRICS: what each metric is called, which way is better, how it is shown and computed
    samples      feature matrices, and the blocks of images that a sample and its reference share
    state        number, mean and covariance of features, which add up, saved as safetensors
    frechet      Fréchet distance; its interval from influences, its bias, its paired difference
    kernel       KID and CMMD as exact U-statistics; their intervals and paired differences
    clip         CLIP score of each image
    repetition   the repetition index of each image, from its pixels alone
    layout       things found in an image against what was asked for
    views        from images of any size to the square that a network reads: the one resize
    extractors   the networks: mini-clip, Inception-v3, DINOv2, EfficientNet-lite0, any open_clip model
    features     what is computed from images, once, and kept on disk

A feature matrix is `[n, d]`, one row an image, numpy or torch, in any floating type; all arithmetic is in
float64, on the device of the features. Some rows are read at a time, so that nothing grows with the number of
images but the feature matrix. The names in `__init__.pyi` are imported on first use: `import
entropy_lib.metrics` itself loads nothing heavy.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
