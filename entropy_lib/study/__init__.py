"""What people see: the pairwise user study of Table 3, from the page that raters open to the analysis of what they answered.

`make_study` chooses and blinds pairs of pictures, `Study.write` makes a page that opens from the file system, `check_answers` reads
what comes back and says what it leaves out and why, `compare` and its neighbours analyse the rest. Knows pictures and tables; must
not know who drew them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
