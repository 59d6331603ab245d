"""Pictures of the demo's page for the docs: docs/page.png and, dark, docs/page-dark.png.

    layeralign demo --out out/demo && python benchmarks/screenshots.py out/demo

Needs Chromium (Debian's /usr/bin/chromium). Shown is what fits a window of 1200 × 1500.
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="the --out of layeralign demo")
    page = (parser.parse_args().demo / "report.html").resolve().as_uri()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme, name in (("light", "page.png"), ("dark", "page-dark.png")):
            tab = browser.new_page(viewport={"width": 1200, "height": 1500}, color_scheme=scheme)
            tab.goto(page)
            tab.wait_for_timeout(300)
            tab.screenshot(path=DOCS / name)
        browser.close()


if __name__ == "__main__":
    main()
