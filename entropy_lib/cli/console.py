"""What the command line says. Messages are printed as they are: square brackets in them are no markup."""

from rich.console import Console
from rich.text import Text

console = Console()


def say(text: str, style: str = "") -> None:
    """Print a line, uncut, on standard output."""
    console.print(Text(text, style), soft_wrap=True)


def say_error(error: object) -> None:
    """Print an error as one line on standard error."""
    Console(stderr=True).print(Text(" ".join(str(error).split()), "red"), soft_wrap=True)
