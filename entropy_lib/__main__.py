"""`python -m entropy_lib`: see `entropy_lib.cli.command_line`."""

import os
import sys

from entropy_lib.cli.interruption import interruptible

QUIET = ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS")  # each is read where its library is imported


def main() -> None:
    """Run the command line; Ctrl-C may come during imports. Progress bars are for those who watch."""
    if not sys.stderr.isatty():
        os.environ |= dict.fromkeys(QUIET, "1")
    with interruptible():
        from entropy_lib.cli.command_line import main as commands

        commands()


if __name__ == "__main__":
    main()
