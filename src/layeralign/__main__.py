"""`python -m layeralign`, and the `layeralign` command."""

import gc
import sys


def run() -> None:
    """Run one command and leave with its exit code."""
    try:
        gc.set_threshold(50_000)  # the rows of a run are many objects, all of which live to the end
        from layeralign.cli import main  # inside, so that Ctrl-C during the import is one sentence, too

        code = main()
    except KeyboardInterrupt:
        print("\nstopped; finished work is saved, and the same command resumes it", file=sys.stderr)
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    run()
