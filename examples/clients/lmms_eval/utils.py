"""Functions of the task in testbed.yaml."""

import io
from base64 import b64decode

from PIL import Image


def pictures(case: dict[str, str]) -> list[Image.Image]:
    """Return the case's picture, in a list as lmms-eval wants it."""
    content = b64decode(case["picture"].partition(",")[2])
    return [Image.open(io.BytesIO(content)).convert("RGB")]


def refused(case: dict[str, str], replies: list[str]) -> dict[str, float]:
    """Return whether the reply refuses; the testbed's model always refuses in the same words."""
    return {"refused": float(replies[0].startswith("i am sorry"))}
