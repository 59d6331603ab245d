"""Tables in the docs that are made of the tests' own results."""

import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
END = "<!-- end -->"

Results = dict[tuple[str, str], bool]
"""(test, parameter) -> whether it passed; skipped ones are left out."""


def results(tests: Sequence[str]) -> Results:
    """Run test files, and say how each test ended."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", "-q", *tests, f"--junitxml={file}"]
        subprocess.run(command, cwd=ROOT, check=False, stdout=sys.stderr)
        found = {}
        for case in ET.parse(file).getroot().iter("testcase"):
            name, _, parameters = case.get("name", "").removeprefix("test_").partition("[")
            if case.find("skipped") is None:
                bad = case.find("failure") is not None or case.find("error") is not None
                found[name, parameters.removesuffix("]")] = not bad
        return found


def mark(passed: Sequence[bool]) -> str:
    """Whether all passed, and of how many."""
    if passed and all(passed):
        return "✓"
    return f"**{sum(passed)} of {len(passed)}**"


def write(doc: str, script: str, about: str, table: Sequence[str]) -> bool:
    """Put a table in its place in a doc; returns whether every cell of it is whole."""
    begin = f"<!-- made by benchmarks/{script} -->"
    told = f"{datetime.now(UTC):%Y-%m-%d}, {about}: `python benchmarks/{script}`"
    made = "\n".join((begin, told, "", *table, END))
    file = ROOT / "docs" / doc
    text = file.read_text(encoding="utf-8")
    found, n = re.subn(f"{begin}.*?{END}", lambda _: made, text, flags=re.DOTALL)
    if n != 1:
        raise SystemExit(f"{file}: has {n} places for this table; expected one, from {begin} to {END}")
    file.write_text(found, encoding="utf-8")
    return "**" not in "\n".join(table)
