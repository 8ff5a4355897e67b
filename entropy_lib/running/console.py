"""What the command line says. Messages are printed as they are: square brackets in them are no markup."""

import atexit
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

console = Console()


def say(text: str, style: str = "") -> None:
    """Print a line, uncut, on standard output."""
    console.print(Text(text, style), soft_wrap=True)


def say_error(error: object) -> None:
    """Print an error as one line on standard error."""
    Console(stderr=True).print(Text(" ".join(str(error).split()), "red"), soft_wrap=True)


def interactive() -> bool:
    """Whether somebody watches: progress bars would fill a log."""
    return sys.stderr.isatty()


@contextmanager
def interruptible() -> Iterator[None]:
    """Around what Ctrl-C may end: in one line, with what the interruption has to say, and exit status 130."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        signal.signal(signal.SIGINT, lambda *_: None)  # a second one would end in a traceback of the exit
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
        say_error(": ".join(("interrupted", *map(str, interruption.args))))
        raise SystemExit(130) from None
