# pyright: reportAttributeAccessIssue=error
from . import patch as patch
from . import predictions as predictions
from . import rules as rules
from .patch import applied_rule as applied_rule
from .patch import apply_scale as apply_scale
from .patch import remove_scale as remove_scale
from .patch import scale_report as scale_report
from .patch import scaled as scaled
from .predictions import predicted_share as predicted_share
from .predictions import predicted_slope as predicted_slope
from .predictions import under_rules as under_rules
from .rules import Rule as Rule
from .rules import distinct_rules as distinct_rules
from .rules import rule as rule
from .rules import rule_list as rule_list
