"""Every command is a function of the package, with the same defaults."""

import inspect
import subprocess
import sys

import pytest

import layeralign
from layeralign.cli.app import app
from layeralign.training.settings import AlignSettings

COMMANDS = sorted(name for name in app if not name.startswith("-") and name != "testbed")
"""All but `testbed build`, which makes what ships; its functions are in layeralign.testbed."""
ELSEWHERE = {
    "model options": "revision variant dtype device_map adapter allow quantize",  # of load
    "output": "json format list preview junit markdown",  # a result has to_json, to_frame; layeralign.gating.render
    "another function": "screen",
    "other names": "judge panel import",  # names of judge, filled of label
}
"""Flags that are no argument of their function, and why."""


def flags(command):
    """Name -> default of every flag, `inspect.Parameter.empty` where it is required."""
    found = command if command.default_command else command["train"]  # reward train
    arguments = found.assemble_argument_collection()
    return {
        one.name.lstrip("-").lower().replace("-", "_"): inspect.Parameter.empty
        if one.required
        else one.field_info.default
        for one in arguments
        if not one.children
    }


def arguments(function):
    """Name -> default; the settings of a training one by one."""
    found = {name: one.default for name, one in inspect.signature(function).parameters.items()}
    if "settings" in found:
        found |= {
            name: getattr(AlignSettings(), name) for name in inspect.signature(AlignSettings).parameters
        }
    return found


def test_every_command_is_in_dir():
    assert set(COMMANDS) <= set(dir(layeralign)) and set(layeralign.__all__) <= set(dir(layeralign))
    assert len(COMMANDS) == 23 and all(callable(getattr(layeralign, name)) for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_defaults_are_those_of_the_flags(name):
    known, given = arguments(getattr(layeralign, name)), flags(app[name])
    elsewhere = {flag for flags in ELSEWHERE.values() for flag in flags.split()}
    assert given.keys() - known.keys() <= elsewhere, name
    for flag in given.keys() & known.keys():
        mine, theirs = known[flag], given[flag]
        assert mine == theirs or str(mine) == str(theirs) or (mine == () and theirs is None), (name, flag)


def test_torch_is_imported_when_it_is_used():
    code = "import sys, layeralign; dir(layeralign); layeralign.cases; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_package_with_the_name_of_a_command_is_both(tmp_path):
    import layeralign.report.asr
    from layeralign.cases import files

    found = layeralign.cases("testbed", limit=3)
    assert [case.id[-1] for case in found] == ["0", "1", "2"] and layeralign.cases.files is files
    assert inspect.signature(layeralign.report).parameters["with_answers"].default is False
    with pytest.raises(layeralign.LayeralignError, match="no run is named"):
        layeralign.report(out=tmp_path / "page.html")
