"""The docs' pictures of the bundled model, from nothing.

    python benchmarks/screenshots.py --out out/pictures   # 5 minutes on two cores; what is there is not done again

The demo trains (docs/page.png and page-dark.png are its page); the model before and after is scanned on the sealed test
split (docs/curve.png, docs/before_after.png). Needs Chromium (Debian's /usr/bin/chromium).
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parent.parent / "docs"


def layeralign(*arguments: str | Path) -> None:
    """One command."""
    subprocess.run([sys.executable, "-m", "layeralign", *map(str, arguments)], check=True)


def scanned(out: Path, *adapter: str | Path) -> Path:
    """A run of the sealed test split: 500 harmful cases an exit, as many of each other stratum."""
    layeralign("scan", "--model", "testbed", "--cases", "testbed:test", "--limit", 2000,
               "--exits", "all", "--max-new-tokens", 24, "--out", out, *adapter)  # fmt: skip
    return out


def shoot(page: Path) -> None:
    """The page, light and dark, as much as fits a window of 1200 × 1500."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme, name in (("light", "page.png"), ("dark", "page-dark.png")):
            tab = browser.new_page(viewport={"width": 1200, "height": 1500}, color_scheme=scheme)
            tab.goto(page.resolve().as_uri())
            tab.wait_for_timeout(300)
            tab.screenshot(path=DOCS / name)
        browser.close()


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder for runs")
    out = parser.parse_args().out
    layeralign("demo", "--out", out / "demo")
    shoot(out / "demo" / "report.html")
    before = scanned(out / "before")
    after = scanned(out / "after", "--adapter", out / "demo" / "adapter")
    layeralign("figure", before, "--out", DOCS / "curve.png", "--columns", 2)
    layeralign("figure", before, after, "--out", DOCS / "before_after.png", "--columns", 2)


if __name__ == "__main__":
    main()
