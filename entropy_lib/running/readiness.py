"""Whether what was asked for can run on this machine, found out before the first notebook starts or the first image is drawn.

`parameters` looks at the values alone, so that a laptop can check and plan what a cluster will run; this looks around.
"""

import math
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache

from entropy_lib.baselines.methods import method
from entropy_lib.errors import InvalidInputError, WeightsError, shortened
from entropy_lib.files import DATA, REFUSALS, restore_command, workplace
from entropy_lib.models.catalogue import CATALOGUE, check_folder, entry, local_folder, resolve_device
from entropy_lib.models.checksums import verify
from entropy_lib.models.hub import hub_answers
from entropy_lib.models.outline import outline_levels
from entropy_lib.running.parameters import MetricTables, Parameters, Sampling, Sweep
from entropy_lib.scaling.rules import rule
from entropy_lib.sizes import parse_size

ROOM = 2**20  # bytes that a folder must take: what a page, a plan or a table needs at least


def check_ready(checked: Parameters) -> None:
    """Whether a notebook with these parameters has what it needs: folders, device, weights, rules that have a factor, pictures.

    Raises:
        InvalidInputError: naming the parameter that cannot be used here.
        WeightsError: when weights are missing or damaged.
        MissingFileError: for real pictures that are not there.
    """
    check_writable("output", workplace() / checked.output)
    if isinstance(checked, Sampling):
        check_device(checked.device)
        check_weights(checked.model)
        _check_rules(checked)
    if isinstance(checked, Sweep):
        check_writable("store", checked.folder_of_store())
        _check_comparison(checked)
    for control in getattr(checked, "controls", []):
        check_weights(control)


def check_writable(name: str, folder: Path) -> None:
    """InvalidInputError unless a folder, or what it would be made in, can be written to and has room; it is not made.

    Args:
        name: whose value it is.
        folder: that is to be written to.
    """
    try:
        with tempfile.TemporaryFile(dir=_there(folder)) as file:
            file.write(bytes(ROOM))
    except OSError as error:
        reason = REFUSALS.get(error.errno, "no folder can be made there")
        raise InvalidInputError(
            f"{name} is {shortened(str(folder), 300)}, which cannot be written to: {reason}; make room or name another"
        ) from None


def _there(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    try:
        os.lstat(folder)
    except FileNotFoundError:
        above = _there(folder.parent)
        with suppress(FileNotFoundError):
            os.lstat(above / folder.name)  # which may be too long a name
        return above
    return folder


def check_device(device: str) -> None:
    """InvalidInputError unless torch can use the device here."""
    try:
        torch.empty(1, device=resolve_device(device))
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInputError(f"device is {device!r}, which cannot be used here ({reason}); take 'auto' or 'cpu'") from None


def check_weights(model: str) -> None:
    """UnknownNameError for a model that there is not, WeightsError unless its weights are here and whole, or can be fetched."""
    folder = local_folder(model)
    if folder is not None:
        return check_folder(model, folder)
    known = CATALOGUE.get(model) if "/" in model else entry(model)
    source, revision = (known.source, known.revision) if known else (model, None)
    if "/" not in source:
        raise WeightsError(f"data/{source} is missing; restore it with `{restore_command(source)}`")
    if not isinstance(try_to_load_from_cache(source, "model_index.json", revision=revision), str) and not hub_answers():
        pinned = f" --revision {revision}" if revision else ""
        raise WeightsError(
            f"model is {model!r}, whose weights are not here, and the Hugging Face Hub does not answer; get them where there is a "
            f"network, `hf download {source}{pinned}`, or give a folder that holds them"
        )


def _check_rules(checked: Sampling) -> None:
    """Whether every rule has its levels, and a factor at every size; tokens are rounded up, so nothing that works is refused."""
    if checked.model not in CATALOGUE:
        return
    known = CATALOGUE[checked.model]
    for name in checked.rule_names():
        rule(method(name).rule).layers(outline_levels(checked.model))
    for size in checked.image_sizes():
        scale = [side / native for side, native in zip(parse_size(size), known.native_size, strict=True)]
        for trained in known.training_tokens:
            tokens = math.prod(math.ceil(math.sqrt(trained) * each) for each in scale)
            for name in checked.rule_names():
                chosen = rule(method(name).rule)
                if not chosen.calibrated:
                    chosen.factor(tokens, trained)


def _check_comparison(checked: Sweep) -> None:
    from entropy_lib.metrics.extractors import extractor
    from entropy_lib.running.metric_tables import plan_of
    from entropy_lib.sweep.references import open_reference

    open_reference(checked.reference)
    for part in checked.parts():
        plan_of(part)
    for name in {checked.extractor, checked.score_extractor} if isinstance(checked, MetricTables) else ():
        if name == "mini-clip":
            verify(DATA / name)
        else:
            extractor(name)
