# pyright: reportAttributeAccessIssue=error
from .clip import clip_scores as clip_scores
from .extractors import Extractor as Extractor
from .extractors import extractor as extractor
from .features import FeatureCache as FeatureCache
from .frechet import FewImagesWarning as FewImagesWarning
from .frechet import frechet_difference as frechet_difference
from .frechet import frechet_distance as frechet_distance
from .frechet import frechet_interval as frechet_interval
from .height_maps import height_metrics as height_metrics
from .kernel import gaussian_kernel as gaussian_kernel
from .kernel import kernel_difference as kernel_difference
from .kernel import kernel_interval as kernel_interval
from .kernel import kid as kid
from .kernel import polynomial_kernel as polynomial_kernel
from .kernel import squared_mmd as squared_mmd
from .registry import METRICS as METRICS
from .state import FeatureState as FeatureState
