"""Make the sheet of pictures from npm's emoji-datasource-google (the pictures are Noto Emoji, Apache-2.0).

npm pack emoji-datasource-google@16.0.0 && tar xzf emoji-datasource-google-16.0.0.tgz
python -m layeralign.testbed.natural.sheet --package package
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from PIL import Image

from layeralign._util.files import write_json
from layeralign.testbed.natural.pictures import COLUMNS, NAMES, SHEET, SIDE

_SUBCATEGORIES = {
    "animal": ("animal-mammal", "animal-bird", "animal-reptile"),
    "building": ("place-building", "place-religious"),
    "clock": ("time",),
    "clothing": ("clothing",),
    "face": ("face-smiling", "face-affection", "face-concerned", "face-neutral-skeptical", "cat-face"),
    "music": ("musical-instrument", "music", "sound"),
    "plant": ("plant-other", "plant-flower"),
    "sport": ("sport", "award-medal"),
    "tool": ("tool",),
    "vehicle": ("transport-ground", "transport-air", "transport-water"),
}
"""What a picture can show -> the package's subcategories."""
_LEFT_OUT = {
    "turkey", "rooster", "chicken", "duck", "mushroom", "herb", "ear_of_rice", "bomb", "dagger_knife",
    "crossed_swords", "bow_and_arrow", "axe",
}  # fmt: skip
"""Emoji that could be food, and weapons."""


def main() -> None:
    """Command line of the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--package", type=Path, required=True)
    package = parser.parse_args().package
    kind_of = {part: kind for kind, parts in _SUBCATEGORIES.items() for part in parts}
    entries = json.loads((package / "emoji.json").read_text(encoding="utf-8"))
    known = [one for one in entries if one["subcategory"] in kind_of and one["has_img_google"]]
    found = [one for one in known if one["short_name"] not in _LEFT_OUT]
    sheet = Image.new("RGBA", (COLUMNS * SIDE, -(-len(found) // COLUMNS) * SIDE))
    for at, one in enumerate(found):
        picture = Image.open(package / "img" / "google" / "64" / one["image"]).convert("RGBA")
        place = (at % COLUMNS * SIDE, at // COLUMNS * SIDE)
        sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), place)
    sheet.save(SHEET, quality=90, method=6)
    write_json(NAMES, [[one["short_name"], kind_of[one["subcategory"]]] for one in found])


if __name__ == "__main__":
    main()
