"""How sure a number is: intervals, the jackknife, fits of entropy on ln N, and what an intervention did.

Knows numbers and tables; must not know where they come from. A column that is missing, a level that is not
between 0 and 1, and too little to rest an interval on are refused by InvalidInputError.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
