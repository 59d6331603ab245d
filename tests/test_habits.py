"""The commit-msg hook."""

import subprocess
import sys
from pathlib import Path

import pytest

HOOK = Path(__file__).parent.parent / ".ci" / "subject"


def says(subject, tmp_path):
    (tmp_path / "message").write_text(f"{subject}\n\nAdded the why in the body.\n")
    found = subprocess.run(
        [sys.executable, HOOK, tmp_path / "message"], capture_output=True, text=True, check=False
    )
    return found.returncode, found.stderr


@pytest.mark.parametrize(
    "subject",
    ["Add a test", "Need a key for the remote guard", "Pass the seed on", "Merge main", "A" + "b" * 71],
)
def test_an_imperative_subject_passes(subject, tmp_path):
    assert says(subject, tmp_path) == (0, "")


@pytest.mark.parametrize(
    ("subject", "why"),
    [
        ("Added a test", "imperative"),
        ("Adds a test", "imperative"),
        ("Adding a test", "imperative"),
        ("add a test", "capitalised"),
        ("Add a test.", "full stop"),
        ("A" + "b" * 72, "73 characters"),
        ("", "capitalised"),
    ],
)
def test_another_subject_is_refused_with_the_reason(subject, why, tmp_path):
    code, told = says(subject, tmp_path)
    assert code == 1 and why in told
