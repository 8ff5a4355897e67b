# pyright: reportAttributeAccessIssue=error
from . import calibration as calibration
from . import generation as generation
from . import measurement as measurement
from . import position as position
from . import request as request
from .calibration import calibrate as calibrate
from .calibration import out_of_reach as out_of_reach
from .generation import generate as generate
from .generation import own_options as own_options
from .measurement import entropy_by_size as entropy_by_size
from .measurement import logit_shape_by_size as logit_shape_by_size
from .measurement import native_layers as native_layers
from .position import position_error as position_error
from .request import distinct_rules_at as distinct_rules_at
from .request import native_size as native_size
from .request import size_multiple as size_multiple
