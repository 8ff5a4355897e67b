"""`python -m entropy_lib`: see `entropy_lib.running.command_line`."""

from entropy_lib.running.command_line import main

if __name__ == "__main__":
    main()
