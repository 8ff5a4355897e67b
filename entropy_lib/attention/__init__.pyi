# pyright: reportAttributeAccessIssue=error
from . import entropy as entropy
from . import kernels as kernels
from . import logit_shape as logit_shape
from . import maps as maps
from .entropy import Rows as Rows
from .entropy import attention_entropy as attention_entropy
from .entropy import logit_moments as logit_moments
from .entropy import row_indices as row_indices
from .logit_shape import by_layer as by_layer
from .logit_shape import expected_maximum as expected_maximum
from .logit_shape import row_statistics as row_statistics
from .maps import AttentionMap as AttentionMap
