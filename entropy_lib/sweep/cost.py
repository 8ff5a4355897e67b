"""What a plan costs: images, hours, bytes. Hours come from a rate measured here, or are not given."""

import pandas as pd
import torch

from entropy_lib.errors import WeightsError
from entropy_lib.sweep.engines import local
from entropy_lib.sweep.plan import Plan
from entropy_lib.sweep.store import Store

PNG_BYTES = 1.6  # a pixel, where nothing has been drawn yet: photographs as PNG


def estimate(
    plan: Plan, store: Store, *, batch: int, device: str = "auto", measure: bool = True, progress: bool = True
) -> pd.DataFrame:
    """Cost of what is planned, one row a size and the sum.

    Args:
        batch, device: as the images will be drawn.
        measure: draw one batch of each size where none is there yet; those images are part of the plan and are kept. Half
            precision is not measured without a GPU.
        progress: show a bar meanwhile.

    Returns:
        columns `size, images, seconds, hours, megabytes`, as text; a dash where nothing has been measured.
    """
    if measure and (torch.cuda.is_available() or plan.units[0].dtype == "float32"):
        _draw_one_batch_of_each_size(plan, store, batch, device, progress)
    rows = [(size, *_cost(plan, store, size)) for size in plan.sizes]
    table = pd.DataFrame(rows, columns=["size", "images", "seconds", "hours", "megabytes"])
    total = ("all", table.images.sum(), float("nan"), table.hours.sum(skipna=False), table.megabytes.sum())
    table.loc[len(table)] = total
    return pd.DataFrame(
        {
            "size": table["size"],
            "images": table.images.map("{:,}".format),
            "seconds": table.seconds.map(lambda value: "–" if pd.isna(value) else f"{value:.2f}"),
            "hours": table.hours.map(lambda value: "–" if pd.isna(value) else f"{value:.2f}"),
            "megabytes": table.megabytes.map("{:,.1f}".format),
        }
    )


def _draw_one_batch_of_each_size(plan: Plan, store: Store, batch: int, device: str, progress: bool) -> None:
    first = {group[0].size: group for group in reversed(plan.groups(batch))}
    try:
        local(list(first.values()), store, device=device, progress=progress)
    except WeightsError:
        return  # planned here, drawn elsewhere


def _cost(plan: Plan, store: Store, size: str) -> tuple[int, float, float, float]:
    """Images, seconds an image (those of the batches already drawn), hours, megabytes."""
    units = [unit for unit in plan.units if unit.size == size]
    records = store.readable_records(units)
    seconds = pd.Series([record.get("seconds") for record in records], dtype=float).median()
    written = [record["bytes"] for record in records if "bytes" in record]
    each = sum(written) / len(written) if written else PNG_BYTES * units[0].height * units[0].width
    return len(units), seconds, seconds * len(units) / 3600, each * len(units) / 1e6
