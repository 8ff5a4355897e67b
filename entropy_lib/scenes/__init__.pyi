# pyright: reportAttributeAccessIssue=error
from . import detection as detection
from . import scenes as scenes
from . import sprites as sprites
from .detection import true_layouts as true_layouts
