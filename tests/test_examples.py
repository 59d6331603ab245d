"""The notebook in examples/ runs in a real Jupyter kernel, and its outputs are what a reader should see.

`python tests/test_examples.py` runs it and writes its outputs into the file.
"""

import re
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FILE = Path(__file__).parent.parent / "examples" / "first_scan.ipynb"


def execute(folder):
    """The notebook with the outputs of a fresh kernel that runs it in `folder`."""
    made = nbformat.read(FILE, as_version=4)
    options = {"timeout": 600, "kernel_name": "python3", "record_timing": False}
    NotebookClient(made, resources={"metadata": {"path": str(folder)}}, **options).execute()
    made.metadata = {"kernelspec": made.metadata["kernelspec"], "language_info": {"name": "python"}}
    return made


def outputs(notebook):
    """The outputs of each code cell."""
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def kinds(notebook):
    """What each output is, such as text/html and text/plain."""
    return [[sorted(output.data) for output in cell] for cell in outputs(notebook)]


def check(notebook):
    """What a reader relies on."""
    for cell in outputs(notebook):
        for output in cell:
            assert output.output_type in ("display_data", "execute_result"), (
                output
            )  # no error, nothing printed
            text = "".join(v for k, v in output.data.items() if k.startswith("text/"))
            assert "\x1b" not in text and "<script" not in text
        assert len(cell) <= 4, "progress is one output for each job"
    shown = [{name for output in cell for name in output.get("data", {})} for cell in outputs(notebook)]
    assert (
        sum("text/html" in names for names in shown) >= 6
        and sum("image/png" in names for names in shown) == 1
    )
    assert any("<svg" in o.data.get("text/html", "") for cell in outputs(notebook) for o in cell)


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel(tmp_path):
    made = execute(tmp_path)
    check(made)
    kept = nbformat.read(FILE, as_version=4)
    assert kinds(made) == kinds(kept), "run python tests/test_examples.py"


def test_the_outputs_that_are_kept_are_small_and_name_no_machine():
    text = FILE.read_text()
    check(nbformat.read(FILE, as_version=4))
    assert len(text) < 400_000 and not re.search(r"/(home|root|tmp|work|usr|Users)/", text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(execute(Path(folder)), FILE)
