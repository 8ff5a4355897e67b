# pyright: reportAttributeAccessIssue=error
from . import detection as detection
from . import scenes as scenes
from . import sprites as sprites
from . import truth as truth
from .truth import true_layouts as true_layouts
