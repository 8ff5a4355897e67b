# pyright: reportAttributeAccessIssue=error
from . import fits as fits
from . import interval as interval
from . import resampling as resampling
from .fits import SlopeFit as SlopeFit
from .fits import cluster_mean as cluster_mean
from .fits import share_removed as share_removed
from .fits import slope_on_log_tokens as slope_on_log_tokens
from .fits import slopes_by_rule as slopes_by_rule
from .interval import Interval as Interval
from .interval import wilson as wilson
from .resampling import deal_blocks as deal_blocks
from .resampling import deal_together as deal_together
from .resampling import jackknife as jackknife
from .resampling import jackknife_difference as jackknife_difference
