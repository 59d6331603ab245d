"""Drawing of scenes: coloured shapes on a grey background, with jitter and noise."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from layeralign.testbed.world import Scene

SIZE = 32
"""Width and height of a picture, in pixels."""

_RGB = {
    "red": (200, 40, 40),
    "green": (40, 160, 60),
    "blue": (45, 75, 205),
    "yellow": (225, 205, 50),
    "purple": (140, 55, 165),
    "orange": (235, 130, 35),
}


def _inside(shape: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signed distance to the edge of a shape that fills [-1, 1]²; positive inside."""
    if shape == "circle":
        return 1 - np.hypot(x, y)
    if shape == "square":
        return 0.85 - np.maximum(abs(x), abs(y))
    if shape == "diamond":
        return (1.05 - abs(x) - abs(y)) * 0.75
    if shape == "cross":
        return np.maximum(np.minimum(0.95 - abs(x), 0.33 - abs(y)), np.minimum(0.33 - abs(x), 0.95 - abs(y)))
    if shape == "wedge":  # a triangle upside down
        y = -y
    return np.minimum(0.85 - y, (y + 0.95 - 1.9 * abs(x)) * 0.45)


def draw(scene: Scene, seed: int) -> NDArray[np.uint8]:
    """Draw a scene; the same scene and seed give the same picture.

    Args:
        scene: The scene.
        seed: Seed of the background, of sizes and positions within cells, and of the noise.

    Returns:
        The picture, uint8 [32, 32, 3], RGB.
    """
    digest = hashlib.sha256(f"{scene!r} {seed}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8]))
    ground = rng.uniform(90, 245)
    picture = np.full((SIZE, SIZE, 3), ground) + rng.uniform(-8, 8, 3)
    half = SIZE / 2
    grid_y, grid_x = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    for thing in scene.things:
        radius = rng.uniform(5.2, 7.2)
        slack = half / 2 - radius
        row, column = divmod(thing.cell, 2)
        x0 = half * (column + 0.5) + rng.uniform(-slack, slack)
        y0 = half * (row + 0.5) + rng.uniform(-slack, slack)
        distance = _inside(thing.shape, (grid_x - x0) / radius, (grid_y - y0) / radius)
        cover = np.clip(distance * radius + 0.5, 0, 1)[..., None]
        colour = np.array(_RGB[thing.colour]) + rng.uniform(-15, 15, 3)
        picture = picture * (1 - cover) + colour * cover
    picture += rng.normal(0, 6, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)
