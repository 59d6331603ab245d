"""`cases`: what can be asked."""

from __future__ import annotations

from layeralign.cli.app import app, put


@app.command
def cases(given: str | None = None, *, limit: int | None = None, seed: int = 0) -> None:
    """List the public benchmarks that can be read, or read cases and say what they are.

    Parameters
    ----------
    given
        What --cases of scan takes; left out, the benchmarks are listed.
    limit
        Take only so many.
    seed
        Of samples and of the pairing with pictures.
    """
    from layeralign.report import cases as shown
    from layeralign.sweep import benchmarks

    if given is None:
        put(shown.known())
    else:
        put(shown.table(benchmarks.cases(given, limit=limit, seed=seed)))
