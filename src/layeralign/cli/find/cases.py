"""`cases`: list public benchmarks, or read and check cases."""

from __future__ import annotations

from layeralign._util.terminal import put, say
from layeralign._util.text import printable
from layeralign.cli.options import OptionalOut
from layeralign.errors import LayeralignError


def cases(
    given: str | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    preview: int | None = None,
    out: OptionalOut = None,
) -> None:
    """List the public benchmarks that layeralign can read, or read cases, check them and summarise them.

    Parameters
    ----------
    given
        Cases, as `scan --cases` takes them; without it, the benchmarks are listed.
    limit
        Maximum number of cases.
    seed
        Seed of samples and of the pairing with pictures.
    preview
        Number of cases to show; the text of harmful cases stays hidden.
    out
        JSONL file to write the cases to, as drawn and paired; their pictures go into a folder next to it.
    """
    from layeralign import benchmarks
    from layeralign.cases import cache, fetching, files
    from layeralign.report.terminal import cases as tables

    if preview is not None and preview < 1:
        raise LayeralignError(f"--preview {preview}: expected at least 1")
    if given is None:
        if preview or out:
            raise LayeralignError("cases: --preview and --out need cases; expected layeralign cases NAME")
        put(tables.known(cache.folder("")))
        return
    found = benchmarks.cases(given, limit=limit, seed=seed)
    put(tables.table(found))
    if preview:
        put(tables.preview(found, preview))
    say(*(f"note: {remark}" for remark in tables.remarks(found)))
    if public := benchmarks.public(given):
        say(*fetching.told(public).splitlines())
    if out:
        files.write(found, out)
        print(printable(f"cases: {out}"))
