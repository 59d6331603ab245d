"""What to say of an error that no code of ours expected: whose fault it can be, and what to do."""

from __future__ import annotations

import sqlite3
import sys
import traceback

from layeralign._util.text import printable


def told(error: Exception) -> str:
    """Return one sentence; it calls the error a bug of ours if nothing else explains it."""
    what = f"{type(error).__name__}: {printable(str(error), 200)}"
    for reason in (_of_a_library, _of_a_database, _of_memory, _of_a_run, _of_a_model, _of_nesting):
        if sentence := reason(error, what):
            return sentence
    from layeralign.runs import opening

    other = "".join(
        f", or another program or version wrote run {run}, whose hash fits" for run in opening.SEALED[-1:]
    )
    return f"a bug in layeralign ({what}){other}; --debug shows where, please report it"


def _of_a_library(error: Exception, what: str) -> str:
    """An import of a package failed."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    for code in reversed(codes):
        _, installed, file = code.co_filename.replace("\\", "/").rpartition("/site-packages/")
        package = file.partition("/")[0].removesuffix(".py")
        if code.co_name == "<module>" and installed and package != "layeralign":
            how = "correct the variables of the environment that it reads"
            return f"{package} cannot be imported ({what}); {how}"
    return ""


def _of_a_database(error: Exception, what: str) -> str:
    if type(error) not in (sqlite3.DatabaseError, sqlite3.OperationalError):
        return ""
    return (
        f"run.sqlite cannot be read or written ({what}); check that the file is intact, the disk has space, "
        "and no other command writes to it"
    )


def _of_memory(error: Exception, what: str) -> str:
    """Python, or torch on the CPU or a GPU, got no memory; torch is not imported for this."""
    full = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if not full and "DefaultCPUAllocator" not in str(error):
        return ""
    return f"there is not enough memory ({what}); use fewer bits or fewer rows at once, or a larger machine"


def _of_a_run(error: Exception, what: str) -> str:
    """A run without a hash was read."""
    from layeralign.runs import damage, opening  # known already, if a run was opened

    doubtful = opening.DOUBTFUL and isinstance(error, damage.DAMAGE)
    return damage.unreadable(opening.DOUBTFUL[-1], error) if doubtful else ""


def _of_a_model(error: Exception, what: str) -> str:
    """A model or an adapter was loaded or asked; what is nearest to the error tells."""
    if not {"layeralign.vlm.vlm", "layeralign.vlm.load"} & sys.modules.keys():
        return ""
    from layeralign.runs.store import Run
    from layeralign.vlm.checkpoint import Adapter, Checkpoint
    from layeralign.vlm.vlm import Vlm

    frames = [frame.f_locals.values() for frame, _ in traceback.walk_tb(error.__traceback__)]
    known = (Run, Vlm, Checkpoint, Adapter)
    near = next((v for v in reversed(frames) if any(isinstance(one, known) for one in v)), ())
    owner = next((one for one in near if isinstance(one, Vlm | Checkpoint | Adapter)), None)
    if owner is None or any(isinstance(one, Run) for one in near):
        return ""
    kind = "adapter" if isinstance(owner, Adapter) else "model"
    return (
        f"{kind} {printable(owner.name)}: fails ({what}), as files that do not fit each other do; download "
        "it again, or, if its files are as published, report this with what --debug shows"
    )


def _of_nesting(error: Exception, what: str) -> str:
    if not isinstance(error, RecursionError):
        return ""
    return f"an input is nested too deeply ({what}); expected fewer levels"
