"""Write docs/judges.md's table of judges and docs/cases.md's of benchmarks from the tests' own results.

    python benchmarks/judge_table.py

Runs the tests, and counts for each cell how many of its tests passed; a cell that is not whole says so. Exits with 1
if any is not.
"""

import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version

from tables import Results, mark, results, write

from layeralign.cases.readers.reader import BENCHMARKS
from layeralign.judges.kinds import KINDS as ALL
from layeralign.judges.kinds import LLM, RULES, TOPIC, VERDICTS
from layeralign.judges.kinds import REMOTE as ON_SERVERS

KINDS, REMOTE = ([kind for kind in kinds if kind not in (LLM, TOPIC)] for kinds in (ALL, ON_SERVERS))
"""The other two have test files of their own."""
JUDGES = ("tests/test_every_judge.py", "tests/test_quality.py")
JUDGED = {  # column -> its tests, and whom they are for
    "here": (("it_judges_here",), [kind for kind in KINDS if kind != "perspective"]),
    "on a server": (("it_judges_on_a_server",), REMOTE),
    "fault-tested": (
        ("faults_are_never_safe", "a_model_that_gives_no_numbers_makes_none_up",
         "killed_and_started_again_it_ends_with_the_same_totals"),
        [kind for kind in KINDS if kind not in RULES],
    ),
    "can be calibrated": (("it_is_calibrated",), VERDICTS),
}  # fmt: skip
READERS = ("tests/test_readers.py", "tests/test_multimodal_readers.py", "tests/test_fetching.py")
FETCHED = [name for name, benchmark in BENCHMARKS.items() if benchmark.origin is not None]
READ = {
    "reader": (("ids_are_unique_and_stable_and_pictures_open",), BENCHMARKS),
    "malformed fixtures, one sentence each": (("what_is_wrong_is_said_in_one_sentence",), BENCHMARKS),
    "offline from a folder": (("it_is_read_offline_from_a_folder",), BENCHMARKS),
    "by name": (("it_is_fetched_by_name", "a_text_that_changed_upstream_is_refused"), FETCHED),
    "offline once fetched": (("it_is_read_offline_once_it_was_fetched",), FETCHED),
    "pairing": (
        ("its_pairing_is_seeded_and_recorded", "its_pictures_are_those_that_its_rows_name"),
        [name for name in BENCHMARKS if name not in ("redteam-2k", "xstest", "hh-rlhf", "beavertails-v", "mmmu")],
    ),
}  # fmt: skip


def of(parameter: str, names: Mapping[str, object]) -> str:
    """The benchmark that a test's parameter begins with."""
    found = [name for name in names if parameter == name or parameter.startswith(f"{name}-")]
    return max(found, key=len, default="")


def judges(found: Results) -> Iterator[str]:
    """Judge × what was tested."""
    yield f"| judge | {' | '.join(JUDGED)} |"
    yield "|---" * (1 + len(JUDGED)) + "|"
    for kind in KINDS:
        cells = []
        for tests, whom in JUDGED.values():
            passed = [found[test, kind] for test in tests if (test, kind) in found]
            cells.append((mark(passed) if passed else "skipped") if kind in whom else "–")
        yield f"| `{kind}` | {' | '.join(cells)} |"


def benchmarks(found: Results) -> Iterator[str]:
    """Benchmark × what was tested; of malformed fixtures, how many."""
    yield f"| benchmark | {' | '.join(READ)} |"
    yield "|---" * (1 + len(READ)) + "|"
    for name in BENCHMARKS:
        cells = []
        for tests, whom in READ.values():
            passed = [
                ok for (test, parameter), ok in found.items()
                if test in tests and of(parameter, BENCHMARKS) == name
            ]  # fmt: skip
            counted = f"{mark(passed)} {len(passed)}" if len(passed) > 3 else mark(passed)
            cells.append(counted if name in whom else "–")
        yield f"| `{name}` | {' | '.join(cells)} |"


def main() -> int:
    """Run, write, and say whether every cell is whole."""
    about = f"transformers {version('transformers')}, torch {version('torch')}"
    whole = write("judges.md", "judge_table.py", about, list(judges(results(JUDGES))))
    return int(not (write("cases.md", "judge_table.py", about, list(benchmarks(results(READERS)))) and whole))


if __name__ == "__main__":
    sys.exit(main())
