"""docs/coverage.md against transformers' own list of classes, the registry and the README."""

import re
from pathlib import Path

from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from layeralign.vlm.families.registry import NO_ENCODER, OWN

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "coverage.md").read_text()
FAMILIES, _, CLASSES, _ = PAGE.split("\n## ")[1:]


def rows(part):
    """The cells of a part's table, without its head."""
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_the_page_has_every_class_of_this_transformers():
    """A class that is missing or gone: run benchmarks/coverage_models.py with its model_type."""
    listed = {kind: name for kind, name, *_ in rows(CLASSES)}
    assert listed == dict(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)


def test_the_page_agrees_with_the_registry():
    status = {kind: status for kind, _, status, _ in rows(CLASSES)}
    own = {family.family for family in OWN}
    assert {kind for kind, found in status.items() if found == "own family"} == own
    assert {kind for kind, found in status.items() if found in ("proved", "own family")}.isdisjoint(
        NO_ENCODER
    )
    assert set(status.values()) <= {"own family", "proved", "not proved", "refused", "no tower", "not tried"}
    named = [kind for _, kinds, _ in rows(FAMILIES) for kind in kinds.split("`, `")]
    assert sorted(named) == sorted(own)


def test_every_refusal_has_its_reason_and_the_share_is_the_tables():
    found = rows(CLASSES)
    assert all(why for _, _, status, why in found if status not in ("proved", "own family"))
    towers = [status for _, _, status, _ in found if status != "no tower"]
    covered = len([status for status in towers if status in ("own family", "proved")])
    share = f"{covered} of {len(towers)} classes with a tower ({100 * covered / len(towers):.0f} %)"
    assert share in CLASSES


def test_the_readme_lists_the_pages_models():
    told = re.search(r"Built in: (.*?)\. ", (ROOT / "README.md").read_text().replace("\n", " "))[1]
    assert told.split(", ") == [name for name, *_ in rows(FAMILIES)]
