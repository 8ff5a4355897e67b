"""The pairwise user study of Table 3, from the page for raters to the analysis of their answers.

`make_study` chooses and blinds pairs of images, `write_page` makes a page that opens from the file system,
`check_answers` says what it leaves out of what comes back and why, `compare` and its neighbours analyse the
rest. Knows images, tables and statistics; must not know who made the images. What cannot be used is refused
by InvalidInputError, but for raters' files, which are left out.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
