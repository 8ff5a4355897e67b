"""How sure a number is: intervals, the jackknife, fits of entropy on ln N, and what an intervention did.

Knows numbers and tables; must not know where they come from.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
