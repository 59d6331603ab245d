"""`cases`: what can be asked."""

from __future__ import annotations

from pathlib import Path

from layeralign._util.text import printable
from layeralign.cli.app import app, put
from layeralign.errors import LayeralignError


@app.command
def cases(
    given: str | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    preview: int | None = None,
    out: Path | None = None,
) -> None:
    """List the public benchmarks that can be read, or read cases, check them and say what they are.

    Parameters
    ----------
    given
        What --cases of scan takes; left out, the benchmarks are listed.
    limit
        Take only so many.
    seed
        Of samples and of the pairing with pictures.
    preview
        Also show the first so many, without what can be read of harmful ones.
    out
        Also write the cases, as drawn and paired, to this JSONL file, their pictures beside it.
    """
    from layeralign import benchmarks
    from layeralign.cases import cache, fetching, files
    from layeralign.report.terminal import cases as shown

    if preview is not None and preview < 1:
        raise LayeralignError(f"preview {preview}: expected at least 1")
    if given is None:
        if preview or out:
            raise LayeralignError(
                "cases: --preview and --out want to know of what; expected layeralign cases NAME"
            )
        put(shown.known(cache.folder("")))
        return
    found = benchmarks.cases(given, limit=limit, seed=seed)
    put(shown.table(found))
    if preview:
        put(shown.preview(found, preview))
    for remark in shown.remarks(found):
        print(f"note: {remark}")
    public = benchmarks.public(given)
    if public:
        print(fetching.told(public))
    if out:
        files.write(found, out)
        print(printable(f"cases: {out}"))
