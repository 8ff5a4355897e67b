"""What a perfect model would get: scenes whose contents are known, drawn at each size and put before the
detector.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from entropy_lib.metrics.layout import Detector
from entropy_lib.metrics.registry import FINDINGS, METRICS, PictureScore
from entropy_lib.scenes import scenes
from entropy_lib.sizes import Size
from entropy_lib.statistics.resampling import deal_blocks, jackknife


def true_layouts(
    detector: Detector, sizes: Sequence[str], metrics: Sequence[str], count: int = 200, level: float = 0.95
) -> pd.DataFrame:
    """What the detector finds in test scenes drawn at each size: what a perfect model would get, and the
    detector's own errors.

    Args:
        detector: of `detection.detector()`.
        sizes: height x width in pixels, "64x96".
        metrics: names of `metrics.registry.METRICS`; those of findings and of single images are computed.
        count: of the scenes.
        level: of the intervals.

    Returns:
        columns `size, method, metric, reference, estimate, low, high, images`, as
        `sweep.reduce.Tables.levels`.
    """
    drawn_from = [scenes.scene(number, "test") for number in range(count)]
    asked, blocks, rows = (
        detector.captions([one.caption for one in drawn_from]),
        deal_blocks(range(count)),
        [],
    )
    for size in sizes:
        images = np.stack([scenes.draw(one, *Size.parse(size)) for one in drawn_from])
        summaries = detector.pictures(images)
        for metric in (METRICS[name] for name in metrics):
            if isinstance(metric, PictureScore):
                values = np.array([metric.value(image) for image in images])
            elif getattr(metric, "features", None) == FINDINGS:
                values = metric.values(summaries, (), lambda _: asked).double().numpy()
            else:
                continue
            known = np.flatnonzero(np.isfinite(values))
            interval = jackknife(np.mean, values[known], blocks[known], level=level)
            row = {
                "size": size,
                "method": "scenes, drawn",
                "metric": metric.name,
                "reference": metric.reference,
            }
            rows.append({**row, **interval.columns(), "images": len(known)})
    return pd.DataFrame(rows)
