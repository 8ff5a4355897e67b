"""`python -m entropy_lib`: see `entropy_lib.running.command_line`."""

import os
import sys

QUIET = ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS")  # each is read where its library is imported


def main() -> None:
    """Run the command line; where nobody watches, no library draws a progress bar, for it would fill a log."""
    if not sys.stderr.isatty():
        os.environ |= dict.fromkeys(QUIET, "1")
    from entropy_lib.running.command_line import main as run

    run()


if __name__ == "__main__":
    main()
