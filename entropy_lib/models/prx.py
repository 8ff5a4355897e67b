"""A mend of diffusers' PRX pipeline, which hands two timesteps to its network for any batch.

Seen in diffusers 0.42.1, where two prompts at once end in an error about shapes (`findings/prx_batches.sh`).
The hook gives each image of the batch its timestep, and does nothing where there are as many already.
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

MARK = "_entropy_lib_timesteps"


def mend_batches(pipe: "DiffusionPipeline") -> "DiffusionPipeline":
    """Let a PRX pipeline take several prompts, once; any other is left as it is."""
    network = getattr(pipe, "transformer", None)
    if type(network).__name__ == "PRXTransformer2DModel" and not hasattr(network, MARK):
        setattr(network, MARK, network.register_forward_pre_hook(timestep_of_each_image, with_kwargs=True))
    return pipe


def timestep_of_each_image(network: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    """Repeat the timesteps of a call until there is one for each image of the batch."""
    images, timestep = kwargs.get("hidden_states"), kwargs.get("timestep")
    tensors = isinstance(images, Tensor) and isinstance(timestep, Tensor)
    if not tensors or len(timestep) in (1, len(images)):
        return None
    return args, kwargs | {"timestep": timestep.repeat_interleave(len(images) // len(timestep))}
