"""What convolutions see beyond the border: all that a UNet like Stable Diffusion's knows of places."""

from collections.abc import Mapping

from torch import nn

from entropy_lib.errors import UnknownNameError

PADDINGS = ("zeros", "reflect", "replicate", "circular")


def set_padding(model: nn.Module, padding: str) -> None:
    """Let all convolutions of a network pad in one way; those of 1 x 1 see no border.

    Example:
        >>> layer = nn.Conv2d(1, 1, 3, padding=1)
        >>> set_padding(layer, "circular"), layer.padding_mode
        (None, 'circular')
    """
    if padding not in PADDINGS:
        raise UnknownNameError("padding", padding, PADDINGS)
    for module in _convolutions(model).values():
        module.padding_mode = padding


def padding_of(model: nn.Module) -> dict[str, str]:
    """How each convolution that sees a border pads, by name."""
    return {name: module.padding_mode for name, module in _convolutions(model).items()}


def restore_padding(model: nn.Module, before: Mapping[str, str]) -> None:
    """Undo `set_padding`, given what `padding_of` said before."""
    for name, module in _convolutions(model).items():
        module.padding_mode = before[name]


def _convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Those that see a border, by name."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    return {name: module for name, module in found.items() if module.padding not in ((0, 0), "valid")}
