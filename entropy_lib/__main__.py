"""`python -m entropy_lib`: see `entropy_lib.running.command_line`."""

from entropy_lib.running.interruption import interruptible


def main() -> None:
    """Run the command line; Ctrl-C may come while it is imported, too."""
    with interruptible():
        from entropy_lib.running.command_line import main as commands

        commands()


if __name__ == "__main__":
    main()
