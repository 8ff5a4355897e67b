"""The figures: one function each, a table in, axes out.

Every function draws with the theme of `theme()`, and never shows or saves. Figures of one panel take
`ax=None`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
