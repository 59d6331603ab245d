"""The natural testbed as a checkpoint folder, assembled once from pretrained parts and shipped deltas."""

from __future__ import annotations

import sys
from pathlib import Path

from layeralign._util import files
from layeralign.errors import LayeralignError
from layeralign.testbed.natural import parts
from layeralign.testbed.natural.deltas import SHIPPED


def folder() -> Path:
    """The cached checkpoint folder; it is assembled at the first call, and again if the deltas are others.

    Raises:
        LayeralignError: A package is missing, a part cannot be downloaded, or the disk is full.
    """
    found = parts.folder() / f"model-{parts.sha256(SHIPPED)[:12]}"
    if not (found / "config.json").exists():
        assemble(found, SHIPPED)
    return found


def check_packages() -> None:
    """Refuse to go on without the packages that read the pretrained parts.

    Raises:
        LayeralignError: A package is missing; the message says how to install it.
    """
    try:
        import gguf  # noqa: F401
        import onnx  # noqa: F401
    except ImportError as error:
        raise LayeralignError(
            f"model natural: needs the package {error.name}; run pip install 'layeralign[natural]'"
        ) from error


def assemble(out: Path, changes: Path) -> None:
    """Assemble the pretrained parts and the changes in a file into a checkpoint folder, which appears whole.

    Raises:
        LayeralignError: See `folder`.
    """
    check_packages()
    from layeralign._util.quiet import quiet
    from layeralign.testbed.natural import architecture, deltas

    print("natural: assembling the model (once, less than a minute)", file=sys.stderr)
    with quiet():
        given = architecture.pretrained()
        model, processor = architecture.assemble(given, seed=0), architecture.processor(given.tokenizer)
        deltas.apply(model, changes)
        with files.atomic_in(out, "the model") as draft:
            model.save_pretrained(draft)
            processor.save_pretrained(draft)
            if (out / "config.json").exists():  # another process was first
                for one in draft.iterdir():
                    one.unlink()
