"""Metric tables: pictures to features, and feature matrices to numbers with intervals.

Knows pictures, feature networks and `statistics`; must not know which model drew a picture, nor under which rule.

    state        number, mean and covariance of features, mergeable, saved as safetensors
    frechet      Fréchet distance, its level without the bias of few images, its paired difference
    kernel       KID and CMMD as exact U-statistics, and whether one of two methods is nearer to a reference
    manifold     precision and recall, density and coverage
    clip         CLIP score of each image
    views        from pictures of any size to the square that a network reads: the one resize
    extractors   the networks: mini-clip, Inception-v3, DINOv2, any open_clip model
    features     features of pictures, computed once and kept on disk

A feature matrix is `[n, d]`, one row an image, numpy or torch, in any floating type; all arithmetic is in float64, on the
device of the features. Rows are read in blocks, so that nothing grows with the number of images but the feature matrix.
The names below are imported on first use: `import entropy_lib.metrics` itself loads nothing heavy.
"""

import importlib

_HOME = {
    "FeatureState": "state",
    "FewImagesWarning": "frechet",
    "frechet_distance": "frechet",
    "frechet_difference": "frechet",
    "frechet_infinity": "frechet",
    "frechet_interval": "frechet",
    "Extractor": "extractors",
    "extractor": "extractors",
    "FeatureCache": "features",
    "cmmd": "kernel",
    "gaussian_kernel": "kernel",
    "kernel_difference": "kernel",
    "kernel_interval": "kernel",
    "kid": "kernel",
    "polynomial_kernel": "kernel",
    "relative_test": "kernel",
    "squared_mmd": "kernel",
    "density_coverage": "manifold",
    "precision_recall": "manifold",
    "clip_scores": "clip",
}

__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
