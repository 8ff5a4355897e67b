"""Numbers that are computed once for each image and kept on disk: features, findings, indices.

What is kept depends on the image, on what computes it (a network with its weights and resize, a detector, a
function), on the view, and on `VERSION`; all are in the address it is kept under, so nothing is ever out of
date. All is computed in float32, whatever the caller's autocast and TF32 allow. Matrices are kept in
safetensors with a checksum; a damaged file is computed anew.

Example:
    >>> import tempfile
    >>> import numpy as np
    >>> from entropy_lib.metrics.extractors import extractor
    >>> images = {name: np.full((32, 48, 3), grey, np.uint8) for name, grey in (("dark", 10), ("light", 200))}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = FeatureCache(folder, extractor("mini-clip"), view="pad")
    ...     cache.matrix(list(images), images.__getitem__).shape
    torch.Size([2, 64])
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from entropy_lib.errors import InvalidInputError
from entropy_lib.files import replacing
from entropy_lib.precision import full_precision

# Of everything in the package that decides the numbers: `views`, `layout`, `repetition`, how the networks are
# called. Whoever changes what any of them gives raises it; `tests/metrics/test_features.py` fails where it
# was forgotten.
VERSION = 1
CHUNK = 256  # images that are read together, and rows of a file
Reader = Callable[[str], UInt8[np.ndarray, "height width 3"]]


class Source(Protocol):
    """What computes rows of numbers from images: an `Extractor`, a `Detector`, a `PictureScore`."""

    name: str  # of the folder that they are kept in
    label: str  # all that decides them but the image, the view and `VERSION`
    # of images of one size (and of a view, where there are views), and of captions, if it knows text
    pictures: Callable[..., Float[Tensor, "image dim"]]
    captions: Callable[[Sequence[str]], Float[Tensor, "caption dim"]]


class FeatureCache:
    """What is computed from images, a row each.

    Args:
        folder: of all caches; each has a folder of its own inside.
        extractor: what computes the rows.
        view: see `Extractor.images`; empty where there are none, or for that of the extractor itself.
    """

    def __init__(self, folder: Path | str, extractor: Source, view: str = ""):
        self.extractor, self.view = extractor, view
        self.label = f"{extractor.label}, {view}" if view else extractor.label
        address = hashlib.sha256(f"{self.label}, {VERSION}".encode()).hexdigest()[:12]
        name = "".join(letter if letter.isalnum() else "-" for letter in f"{extractor.name} {view}".strip())
        self.folder = Path(folder) / f"{name}-{address}"

    def captions(self, captions: Sequence[str]) -> Float[Tensor, "caption dim"]:
        """What the extractor makes of captions, a row each; equal captions are read once."""
        distinct = list(dict.fromkeys(captions))
        place = {caption: index for index, caption in enumerate(distinct)}
        return self.extractor.captions(distinct)[[place[caption] for caption in captions]]

    def matrix(self, keys: Sequence[str], read: Reader) -> Float[Tensor, "image dim"]:
        """Rows in the order of `keys`, float32; what is missing is computed, two chunks in memory at a time.

        Args:
            keys: what identifies each image's bytes, e.g. their checksum.
            read: gives the image of a key; called for missing keys only, in several threads.
        """
        if not len(keys):
            raise InvalidInputError("no images; give at least one")
        places: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        result = torch.empty(0)
        for part, rows in self._parts(list(places), read):
            if not len(result):
                result = torch.empty(len(keys), rows.shape[1])
            for key, row in zip(part, rows, strict=True):
                result[places.get(key, [])] = row
        return result

    def _parts(
        self, keys: Sequence[str], read: Reader
    ) -> Iterator[tuple[Sequence[str], Float[Tensor, "row dim"]]]:
        """Rows and what they are of: those that are kept, a file at a time, then those that are missing."""
        missing = dict.fromkeys(keys)
        for part, rows in self._kept(set(keys)):
            for key in part:
                missing.pop(key, None)
            yield part, rows
        parts = [list(missing)[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
        with ThreadPoolExecutor() as workers:  # which read a chunk while the one before is computed
            coming = workers.map(read, parts[0] if parts else [])
            for part, after in zip_longest(parts, parts[1:], fillvalue=[]):
                pictures, coming = list(coming), workers.map(read, after)
                rows = self._computed(pictures)
                self._save(part, rows)
                yield part, rows

    @full_precision()
    def _computed(self, pictures: Sequence[np.ndarray]) -> Float[Tensor, "image dim"]:
        """Rows of images whose sizes may differ: those of one size go together."""
        sizes: dict[tuple, list[int]] = {}
        for index, image in enumerate(pictures):
            sizes.setdefault(image.shape, []).append(index)
        view = [self.view] if self.view else []
        parts = [
            self.extractor.pictures(np.stack([pictures[i] for i in index]), *view) for index in sizes.values()
        ]
        order = torch.tensor([i for index in sizes.values() for i in index])
        return torch.cat(parts)[order.argsort()]

    def _kept(self, wanted: set[str]) -> Iterator[tuple[Sequence[str], Float[Tensor, "row dim"]]]:
        for path in sorted(self.folder.glob("[!.]*.safetensors")):  # without those that are being written
            try:
                with safe_open(path, "pt") as file:
                    keys = json.loads(file.metadata()["keys"])
                    if wanted.isdisjoint(keys):
                        continue
                    rows = file.get_tensor("features")
                    if _checksum(rows) != file.metadata()["sha256"]:
                        raise SafetensorError("checksum")
            except (SafetensorError, KeyError, TypeError, ValueError):
                path.unlink(missing_ok=True)  # computed anew by `matrix`
                continue
            yield keys, rows

    def _save(self, keys: Sequence[str], rows: Float[Tensor, "image dim"]) -> None:
        metadata = {"keys": json.dumps(list(keys)), "sha256": _checksum(rows), "label": self.label}
        name = hashlib.sha256(metadata["keys"].encode()).hexdigest()[:32]
        with replacing(self.folder / f"{name}.safetensors") as temporary:
            temporary.write_bytes(save({"features": rows.contiguous()}, metadata))


def _checksum(rows: Tensor) -> str:
    return hashlib.sha256(rows.contiguous().numpy().tobytes()).hexdigest()
