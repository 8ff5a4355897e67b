"""A figure with controls, for JupyterLab; pages show its first state as a figure of its own."""

import io
from collections.abc import Callable

from entropy_lib.errors import extra

with extra("notebooks"):
    import ipywidgets
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure


def explorer(draw: Callable[..., Figure], **controls: ipywidgets.ValueWidget) -> ipywidgets.VBox:
    """Controls above the figure that they lead to; it is drawn again whenever one is moved.

    The figure is an image of its own: shown inside `ipywidgets.interactive` it stops a notebook that runs
        without a browser.

    Args:
        draw: takes the value of each control by its name, and returns a figure, which is closed afterwards.
        controls: for the arguments of `draw`; a control's description is the argument's name unless it has
            one.

    Example:
        >>> moved = ipywidgets.IntSlider(value=2, max=5)
        >>> shown = explorer(lambda power: plt.figure(figsize=(power + 1, 1)), power=moved)
        >>> before = shown.children[-1].value
        >>> moved.value = 3
        >>> shown.children[-1].value != before
        True
    """
    image = ipywidgets.Image(format="png")

    def show(_: object = None) -> None:
        figure, content = draw(**{name: control.value for name, control in controls.items()}), io.BytesIO()
        figure.savefig(content, format="png", dpi=110)
        plt.close(figure)
        image.value = content.getvalue()

    for name, control in controls.items():
        control.description = control.description or name
        control.observe(show, names="value")
    show()
    return ipywidgets.VBox([*controls.values(), image])
