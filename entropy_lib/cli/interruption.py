"""What Ctrl-C ends in. Imports nothing that takes time: it may come while the rest is imported."""

import atexit
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """Around what Ctrl-C may end: in one line, with what the interruption has to say, and exit status 130."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        signal.signal(signal.SIGINT, lambda *_: None)  # a second one would end in a traceback of the exit
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
        print(": ".join(("interrupted", *map(str, interruption.args))), file=sys.stderr)
        raise SystemExit(130) from None
