"""`transfer`: what closing one exit does to the others."""

from __future__ import annotations

from dataclasses import dataclass

from cyclopts import Parameter

from layeralign._util.terminal import put
from layeralign._util.text import printable
from layeralign.cli.app import note
from layeralign.cli.close.align import AlignOptions
from layeralign.training.settings import AlignSettings


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """Test cases, which are scanned before and after each training."""

    test: str
    "Test cases: a JSONL or CSV file, or testbed or natural, also with `:dev` or `:test`."
    test_limit: int | None = None
    "Number of test cases to use, from the first; all by default."
    batch_size: int | None = None
    "Largest number of answers generated at once in scans; by default as many as memory allows."


_DEFAULTS = AlignSettings()


def transfer(options: AlignOptions, judged: TransferOptions, settings: AlignSettings = _DEFAULTS) -> None:
    """Train once per part of --exits, and scan every exit before and after: does closing one open another?

    Commas separate parts (`0,3,early`); the word "each" makes every exit a part. `--out` gets the runs, the
    adapters, transfer.json, and transfer.html with the heat map.
    """
    from layeralign import benchmarks
    from layeralign.report.terminal.cases import picture_remarks
    from layeralign.report.terminal.transfer import table

    settings.check_reward(options.reward)
    options.announce()
    from layeralign.rewards.reward import load_reward
    from layeralign.studies.transfer import Judging
    from layeralign.studies.transfer import study as run_transfer

    trained = benchmarks.cases(options.cases, limit=options.limit, seed=settings.seed)
    tested = benchmarks.cases(judged.test, limit=judged.test_limit)
    note(picture_remarks([*trained, *tested], settings.background))
    reward = load_reward(options.reward) if options.reward else None
    judging = Judging(tested, settings.max_new_tokens, judged.batch_size)

    found = run_transfer(
        options.load, trained, options.out, reward=reward, settings=settings, judging=judging
    )
    put(table(found))
    print(printable(f"transfer: {options.out / 'transfer.html'}"))
