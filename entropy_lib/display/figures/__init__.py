"""The figures: one function each, a table in, axes out.

Every function takes `ax=None` (or `figure=None` for grids), draws with the theme of `theme()`, and never shows or saves.

    entropy   against tokens, by layer, the laws
    metrics   against size, against time, paired differences
    causes    doses, arms, repair beside entropy
    pictures  grids, what was found in them, what attention looks at
    people    what raters prefer
    panels    what they share
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
