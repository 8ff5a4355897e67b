# pyright: reportAttributeAccessIssue=error
from . import from_native as from_native
from . import measurement as measurement
from . import methods as methods
from . import multidiffusion as multidiffusion
from . import super_resolution as super_resolution
from . import windows as windows
from .measurement import entropy_by_method as entropy_by_method
from .methods import METHODS as METHODS
from .methods import Method as Method
from .methods import draw_by as draw_by
from .methods import method as method
