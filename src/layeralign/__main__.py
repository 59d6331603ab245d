"""`python -m layeralign`, and the `layeralign` command."""

import gc
import sys

from layeralign._util import stopping


def run() -> None:
    """Run one command and leave with its exit code."""
    if sys.flags.optimize > 1:
        sys.exit(
            "layeralign: Python runs without docstrings (-OO, PYTHONOPTIMIZE=2), which transformers needs; "
            "set PYTHONOPTIMIZE to 0 or 1"
        )
    stopping.listen()
    try:
        gc.set_threshold(50_000)  # the rows of a run are many objects, all of which live to the end
        from layeralign.cli import main  # inside, so that Ctrl-C during the import is one sentence, too

        code = main()
    except KeyboardInterrupt as stop:
        code = stopping.told(stop)
    sys.exit(code)


if __name__ == "__main__":
    run()
