"""`python -m layeralign`, and the `layeralign` command."""

import sys

from layeralign.cli import main


def run() -> None:
    """Run one command and leave with its exit code."""
    sys.exit(main())


if __name__ == "__main__":
    run()
