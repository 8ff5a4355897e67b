"""Sweeps: drawing many images so that nothing is lost, nothing is drawn twice, and every image says what it
is.

Knows models, experiments and metrics; must not know a notebook or its parameters.

    plan        what to draw: units, one an image, whose keys name all that images depend on, in groups drawn together
    store       where images lie: content-addressed files, committed one by one
    sample      how a group is drawn
    engines     who draws, and what it costs: this process, or workers of a Ray cluster
    references  real images to compare with
    comparison  a plan, its images, and what they are compared with
    reduce      from committed images to tables of metrics
    outcomes    every number of each image, and which of them were decided beforehand to tell of damage

A comparison is planned once and drawn by any number of processes, in any order, killed and started again as
they may be:

    python -m entropy_lib sweep plan --profile mini-full
    python -m entropy_lib sweep sample --profile mini-full --shard 0/4
    python -m entropy_lib sweep status --profile mini-full
    python -m entropy_lib sweep reduce --profile mini-full
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
