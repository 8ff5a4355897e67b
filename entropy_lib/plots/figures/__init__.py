"""The figures: one function each, a table in, axes out.

Every function draws with the theme of `theme()`, and never shows or saves. Figures of one panel take
`ax=None`.

    entropy   against tokens, by layer, the laws
    metrics   against size, against time, paired differences, doses, recovery beside entropy
    images    grids, what was found in them, what attention looks at
    people    what raters prefer
    panels    what they share
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
