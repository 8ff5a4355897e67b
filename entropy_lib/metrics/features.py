"""Features of pictures, and numbers computed from their pixels, computed once for each picture and kept on disk.

A feature depends on the picture, the extractor (network, weights, resize) and the view; all are in the address it is kept
under, so nothing is ever out of date. All are computed in float32, whatever the caller's autocast and TF32 allow. Matrices
are kept in safetensors with a checksum; a damaged file is computed anew.

Example:
    >>> import tempfile
    >>> import numpy as np
    >>> from entropy_lib.metrics.extractors import extractor
    >>> pictures = {name: np.full((32, 48, 3), grey, np.uint8) for name, grey in (("dark", 10), ("light", 200))}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = FeatureCache(folder, extractor("mini-clip"), view="pad")
    ...     cache.matrix(list(pictures), pictures.__getitem__).shape
    torch.Size([2, 64])
"""

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from entropy_lib.errors import InvalidInputError
from entropy_lib.files import replacing
from entropy_lib.metrics.extractors import Extractor
from entropy_lib.metrics.layout import Detector
from entropy_lib.precision import full_precision

CHUNK = 256  # pictures in memory at a time, and rows of a file
ARITHMETIC = "float32"  # part of the address: before, autocast had a hand in it
Reader = Callable[[str], UInt8[np.ndarray, "height width 3"]]


class PictureCache(ABC):
    """What is computed from pictures, a row each.

    Args:
        folder: of all caches; each has a folder of its own inside, of this `name`.
        label: all that decides the rows but the pictures.
    """

    def __init__(self, folder: Path | str, name: str, label: str):
        self.label = label
        self.folder = Path(folder) / f"{_slug(name)}-{hashlib.sha256(f'{label}, {ARITHMETIC}'.encode()).hexdigest()[:12]}"

    @abstractmethod
    def rows(self, pictures: UInt8[np.ndarray, "image height width 3"]) -> Float[Tensor, "image dim"]:
        """Of pictures of one size, computed."""

    def matrix(self, keys: Sequence[str], read: Reader) -> Float[Tensor, "image dim"]:
        """Features in the order of `keys`, float32; what is missing is computed, a chunk in memory at a time.

        Args:
            keys: what identifies each picture's bytes, e.g. their checksum.
            read: gives the picture of a key; called for missing keys only.
        """
        if not len(keys):
            raise InvalidInputError("no pictures; give at least one")
        found = self._load(set(keys))
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        for start in range(0, len(missing), CHUNK):
            part = missing[start : start + CHUNK]
            features = self._extract([read(key) for key in part])
            self._save(part, features)
            found |= dict(zip(part, features, strict=True))
        return torch.stack([found[key] for key in keys])

    @full_precision()
    def _extract(self, pictures: Sequence[np.ndarray]) -> Float[Tensor, "image dim"]:
        """Features of pictures whose sizes may differ: those of one size go together."""
        sizes: dict[tuple, list[int]] = {}
        for index, picture in enumerate(pictures):
            sizes.setdefault(picture.shape, []).append(index)
        parts = [self.rows(np.stack([pictures[i] for i in index])) for index in sizes.values()]
        order = torch.tensor([i for index in sizes.values() for i in index])
        return torch.cat(parts)[order.argsort()]

    def _load(self, wanted: set[str]) -> dict[str, Float[Tensor, " dim"]]:
        found: dict[str, Tensor] = {}
        for path in sorted(self.folder.glob("[!.]*.safetensors")):  # without those that are being written
            try:
                with safe_open(path, "pt") as file:
                    keys = json.loads(file.metadata()["keys"])
                    if wanted.isdisjoint(keys):
                        continue
                    features = file.get_tensor("features")
                    if _checksum(features) != file.metadata()["sha256"]:
                        raise SafetensorError("checksum")
            except (SafetensorError, KeyError, TypeError, ValueError):
                path.unlink(missing_ok=True)  # computed anew below
                continue
            found |= {key: row for key, row in zip(keys, features, strict=True) if key in wanted}
        return found

    def _save(self, keys: Sequence[str], features: Float[Tensor, "image dim"]) -> None:
        metadata = {"keys": json.dumps(list(keys)), "sha256": _checksum(features), "label": self.label}
        name = hashlib.sha256(metadata["keys"].encode()).hexdigest()[:32]
        with replacing(self.folder / f"{name}.safetensors") as temporary:
            temporary.write_bytes(save({"features": features.contiguous()}, metadata))


class FeatureCache(PictureCache):
    """The features of one extractor and view.

    Args:
        folder: as for all caches.
        extractor, view: see `Extractor.pictures`.
    """

    def __init__(self, folder: Path | str, extractor: Extractor, view: str = "center"):
        self.extractor, self.view = extractor, view
        super().__init__(folder, f"{extractor.name}-{view}", f"{extractor.label}, {view}")

    def rows(self, pictures: UInt8[np.ndarray, "image height width 3"]) -> Float[Tensor, "image dim"]:
        """The features."""
        return self.extractor.pictures(pictures, self.view)

    def captions(self, captions: Sequence[str]) -> Float[Tensor, "caption dim"]:
        """Embeddings of captions, one for each; equal captions are embedded once."""
        distinct = list(dict.fromkeys(captions))
        place = {caption: index for index, caption in enumerate(distinct)}
        return self.extractor.captions(distinct)[[place[caption] for caption in captions]]


class FindingsCache(PictureCache):
    """What a detector finds, summed up in a row a picture; pictures are looked at in their own size.

    Args:
        folder: as for all caches.
        detector: see `metrics.layout`.
    """

    def __init__(self, folder: Path | str, detector: Detector):
        self.detector = detector
        super().__init__(folder, "findings", detector.label)

    def rows(self, pictures: UInt8[np.ndarray, "image height width 3"]) -> Float[Tensor, "image value"]:
        """The summaries of `metrics.layout`."""
        return self.detector.summaries(pictures)

    def captions(self, captions: Sequence[str]) -> Float[Tensor, "caption 2"]:
        """What each caption asks for."""
        return self.detector.asked_for(captions)


class NumberCache(PictureCache):
    """The numbers that a function gives pictures, under a checksum of the source of its module.

    Args:
        folder, name: as for all caches.
        value: of one picture.
    """

    def __init__(self, folder: Path | str, name: str, value: Callable[[UInt8[np.ndarray, "height width 3"]], float]):
        self.value = value
        source = inspect.getsource(inspect.getmodule(value) or value)
        super().__init__(folder, name, f"{name} @ {hashlib.sha256(source.encode()).hexdigest()[:8]}")

    def rows(self, pictures: UInt8[np.ndarray, "image height width 3"]) -> Float[Tensor, "image 1"]:
        """The numbers, a column."""
        return torch.tensor([[self.value(picture)] for picture in pictures], dtype=torch.float32)


def _checksum(features: Tensor) -> str:
    return hashlib.sha256(features.contiguous().numpy().tobytes()).hexdigest()


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)
