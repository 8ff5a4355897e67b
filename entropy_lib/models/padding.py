"""What convolutions see beyond the border: all the code of position that a UNet like Stable Diffusion's has."""

from torch import nn

from entropy_lib.errors import UnknownNameError

PADDINGS = ("zeros", "reflect", "replicate", "circular")


def set_padding(model: nn.Module, padding: str) -> None:
    """Let all convolutions of a network pad in one way; those of 1 x 1 see no border.

    Args:
        model: the network. Its weights stay as they are.
        padding: "zeros", "reflect", "replicate" or "circular", under which a network knows no border.

    Raises:
        UnknownNameError: for any other.

    Example:
        >>> layer = nn.Conv2d(1, 1, 3, padding=1)
        >>> set_padding(layer, "circular"), layer.padding_mode
        (None, 'circular')
    """
    if padding not in PADDINGS:
        raise UnknownNameError("padding", padding, PADDINGS)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            module.padding_mode = padding
