"""docs/reference/names.md lists every public name, and no other."""

import dataclasses
import re
import types
import typing
from pathlib import Path

import layeralign
import layeralign.cli
from handmade import cases, make
from layeralign.analysis.compare import Comparison
from layeralign.analysis.judging.calibrate import Measured
from layeralign.analysis.plan import Plan
from layeralign.analysis.screen import Screen
from layeralign.analysis.seeds import Seeds
from layeralign.analysis.summary import Summary
from layeralign.cli.app import app
from layeralign.decode.decoding import Decoding
from layeralign.diagnosis import Diagnosis
from layeralign.gating.deployments.runtimes import Reading
from layeralign.gating.endpoint import Fit, Located
from layeralign.gating.evaluate import Gate
from layeralign.gating.fleet import ServerResult
from layeralign.runs.opening import open_run
from layeralign.sweep.settings import ScanSettings
from layeralign.training.settings import AlignSettings
from layeralign.vlm.cost import Encoder

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "names.md"
PRINTED = (
    Summary,
    Seeds,
    Comparison,
    Plan,
    Screen,
    Encoder,
    Diagnosis,
    Measured,
    Gate,
    ServerResult,
    Located,
    Fit,
    Reading,
)
"""What commands print or write as JSON; the classes of their fields are found from here."""


def classes(of, found):
    """A dataclass and those of its fields, in the order in which they are met."""
    if dataclasses.is_dataclass(of) and of not in found:
        found.append(of)
        for kind in typing.get_type_hints(of).values():
            classes(kind, found)
    elif isinstance(of, types.UnionType) or typing.get_origin(of) is not None:
        for part in typing.get_args(of):
            classes(part, found)
    return found


def expected(folder):
    """Section -> names."""
    with open_run(make(folder, cases(1))) as run:
        row = next(run.rows())
    met = []
    for root in PRINTED:
        classes(root, met)
    commands = [name for name in app if not name.startswith("-")]
    return {
        "Commands": sorted(commands),
        "Python": sorted(layeralign.__all__),
        "ScanSettings": [f.name for f in dataclasses.fields(ScanSettings) if f.name != "decoding"],
        "Decoding": [f.name for f in dataclasses.fields(Decoding)],
        "AlignSettings": [f.name for f in dataclasses.fields(AlignSettings)],
        "Row": list(row),
        "Verdict": list(row["verdicts"]["oracle"]),
        **{one.__name__: [field.name for field in dataclasses.fields(one)] for one in met},
    }


def listed():
    """Section of the page -> names in its first line of code marks."""
    sections = re.findall(r"^### (\S+)\n(.*?)(?=^#|\Z)", PAGE.read_text(), re.M | re.S)
    return {
        title: re.findall(r"`([\w-]+)`", re.search(r"^`.*?(?=\n\n|\Z)", body, re.M | re.S)[0])
        for title, body in sections
    }


def test_the_page_lists_every_public_name(tmp_path):
    assert listed() == expected(tmp_path / "run")
