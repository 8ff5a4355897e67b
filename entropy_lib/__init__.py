"""What happens to attention at a size that a diffusion model was not trained for, and what rescaling repairs.

The public names are in `__init__.pyi`. They are imported on first use, so that `import entropy_lib` itself
loads nothing heavy.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
