# pyright: reportAttributeAccessIssue=error
from . import from_native as from_native
from . import methods as methods
from . import multidiffusion as multidiffusion
from . import rivals as rivals
from .methods import METHODS as METHODS
from .methods import Method as Method
from .methods import method as method
