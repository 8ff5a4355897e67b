"""Pipelines of diffusers that take no prompt and know one size, called like those that do.

`DDPMPipeline`, `DDIMPipeline` and `ConsistencyModelPipeline` generate by class, or by nothing at all, at the
size of their network. The number of a class stands in the place of a prompt; without classes prompts are
empty.

Example:
    >>> from entropy_lib.models.architectures import build
    >>> pipe = with_prompts(build("terrain"))
    >>> pipe(["1", "100"], height=16, width=32, output_type="np").images.shape
    (2, 16, 32, 1)
"""

from collections.abc import Sequence
from typing import Any

from diffusers import (
    ConsistencyModelPipeline,
    DDIMPipeline,
    DDPMPipeline,
    DiffusionPipeline,
    ImagePipelineOutput,
)
from torch import Tensor

from entropy_lib.errors import InvalidInputError, shortened
from entropy_lib.models.catalogue import CATALOGUE, recognise

UNPROMPTED = (DDPMPipeline, DDIMPipeline, ConsistencyModelPipeline)  # one loop; the last has all of it


class ByClass(ConsistencyModelPipeline):
    """The loop of diffusers at any size, with classes in the place of prompts; made by `with_prompts`."""

    def __call__(
        self,
        prompt: Sequence[str],
        height: int,
        width: int,
        num_inference_steps: int = 1,
        guidance_scale: float = 1.0,
        **options: Any,
    ) -> ImagePipelineOutput:
        """Generate one image for each class."""
        self.asked_size, labels = (height, width), class_labels(self, prompt)
        return super().__call__(len(prompt), labels, num_inference_steps, **options)

    def prepare_latents(
        self, batch_size: int, num_channels: int, height: int, width: int, *others: Any, **options: Any
    ) -> Tensor:
        """Noise of the size that is asked for, in place of the network's own."""
        return super().prepare_latents(batch_size, num_channels, *self.asked_size, *others, **options)


def with_prompts(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """A pipeline's network and scheduler in one that takes prompts and a size; itself if it does so."""
    if type(pipe) not in UNPROMPTED:
        return pipe
    found = ByClass(pipe.unet, pipe.scheduler)
    found.set_progress_bar_config(disable=True)
    return found


def class_labels(pipe: DiffusionPipeline, prompts: Sequence[str]) -> list[int] | None:
    """The classes that prompts name, counted from 0, or from `Entry.first_class`; None without classes."""
    count, name = pipe.unet.config.num_class_embeds, recognise(pipe)
    first = CATALOGUE[name].first_class if name else 0
    allowed = {"": None} if count is None else {str(first + label): label for label in range(count)}
    wanted = f"classes, whole numbers from {first} to {first + (count or 0) - 1}, are its prompts"
    wanted = f"{type(pipe).__name__} takes no prompt: give '' for each image" if count is None else wanted
    for index, prompt in enumerate(prompts):
        if prompt not in allowed:
            raise InvalidInputError(f"prompts[{index}] is {shortened(prompt)}; {wanted}")
    return None if count is None else [allowed[prompt] for prompt in prompts]
