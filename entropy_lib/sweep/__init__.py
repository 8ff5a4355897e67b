"""Sweeps: drawing many images so that nothing is lost, nothing is drawn twice, and every image says what it is.

Knows models, experiments and metrics; must not know a notebook or its parameters.

    units       what to draw: one unit an image, with a key that names everything the image depends on
    plan        all units of a comparison, in groups that are drawn together; read from and written to a store
    store       where images lie: content-addressed files, committed one by one
    sample      how a group is drawn
    cost        what a plan costs
    engines     who draws: this process, or workers of a Ray cluster
    references  real pictures to compare with
    comparison  a plan, its images, and what they are compared with
    reduce      from committed images to metric tables
    counts      how many things are in each picture
    truth       what a perfect model would get
    outcomes    every number of each picture, and which of them were decided beforehand to tell of damage

A comparison is planned once and drawn by any number of processes, in any order, killed and started again as they may be:

    python -m entropy_lib sweep plan --profile mini-full
    python -m entropy_lib sweep sample --profile mini-full --shard 0/4
    python -m entropy_lib sweep status --profile mini-full
    python -m entropy_lib sweep reduce --profile mini-full
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
