"""The site builds without a warning, its links lead somewhere, and its code is run or held against the real thing."""

import json
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import layeralign
import pages
from layeralign.vlm.load import empty

sys.path.append(str(pages.ROOT / "benchmarks"))
import costs

BUILD = str(Path(sys.executable).with_name("sphinx-build"))
SITE = [BUILD, "--fail-on-warning", "--keep-going", "--quiet", "-c", "docs", "."]
LANGUAGES = {"sh", "python", "json", "yaml", "toml", "text"}
EVERY = [block for page in pages.PAGES for block in pages.blocks(page)]
RUN = sorted({block.page for block in EVERY if block.runs})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site. Nothing of a network is needed."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run([*SITE, str(out)], cwd=pages.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_the_site_builds_without_a_warning(site):
    assert (site / "docs" / "index.html").is_file() and (site / "index.html").is_file()


@pytest.mark.slow
def test_the_site_asks_nothing_of_another_place(site):
    asked = re.compile(r"""(?:<script[^>]*src|<link(?![^>]*rel="canonical")[^>]*href|<img[^>]*src|url\(|@import)"""
                       r"""\s*[=(]?\s*["']?((?:https?:)?//[^"')\s>]+)""")  # fmt: skip
    for file in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert asked.findall(file.read_text()) == [], file


@pytest.mark.slow
def test_every_command_and_every_flag_is_in_the_reference(site):
    from layeralign.cli import app

    shown = (site / "docs" / "reference" / "commands.html").read_text()
    for name in set(app) - {"--help", "-h", "--version"}:
        assert f'id="layeralign-{name}"' in shown, name
    assert "layeralign judge [OPTIONS] RUN" in shown and "--max-new-tokens" in shown


@pytest.mark.slow
def test_everything_that_python_can_call_is_in_the_reference(site):
    shown = (site / "docs" / "reference" / "python.html").read_text()
    for name in layeralign.__all__:
        assert f'id="layeralign.{name}"' in shown, name


@pytest.mark.slow
def test_a_wrong_link_fails_the_build(tmp_path):
    conf = (pages.ROOT / "docs" / "conf.py").read_text()
    (tmp_path / "conf.py").write_text(conf + "\nextensions = ['myst_parser']\ndel setup\n")  # no docstrings
    (tmp_path / "root").mkdir()
    (tmp_path / "static").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A\n\n[no page](b.md)\n\n[no anchor](#b)\n\n[this](#a)\n")
    done = subprocess.run(
        [*SITE[:-3], "-c", str(tmp_path), str(tmp_path), str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.count("WARNING") == 2, done.stderr


def test_every_relative_link_of_every_page_leads_to_a_file():
    tracked = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=pages.ROOT, capture_output=True, text=True, check=True
    )
    for name in tracked.stdout.split():
        page = pages.ROOT / name
        inline = [child for token in MarkdownIt().parse(page.read_text()) for child in token.children or []]
        for link in (child.attrGet("href") or child.attrGet("src") for child in inline):
            file = urllib.parse.unquote((link or "").partition("#")[0])
            assert not file or "://" in file or (page.parent / file).exists(), f"{name}: {link}"


def test_every_benchmark_that_is_named_is_there():
    for page in pages.PAGES:
        for name in re.findall(r"benchmarks/[\w/]+\.\w+", page.read_text()):
            assert (pages.ROOT / name).exists(), f"{page}: {name}"


def test_every_block_says_what_it_is():
    for block in EVERY:
        assert block.language in LANGUAGES or re.fullmatch(r"\{[\w-]+\}", block.language), (
            f"{block.where}: {block.language!r}, expected one of {', '.join(sorted(LANGUAGES))}"
        )
        known = {"run"} if block.language in ("sh", "python") else set()
        unknown = [m for m in block.marks if m not in known and m.partition("=")[0] not in ("exits", "file")]
        assert not unknown or block.language.startswith("{"), f"{block.where}: {unknown}"


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
@pytest.mark.slow
def test_what_a_page_runs_runs_and_prints_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block, said in pages.run_page(page, tmp_path):
        assert pages.shape(block.text) == pages.shape(said), f"{block.where}: what was printed is\n{said}"


@pytest.mark.parametrize(
    "block", [b for b in EVERY if b.language in LANGUAGES], ids=lambda block: block.where
)
def test_what_is_not_run_is_right_as_far_as_can_be_seen(block):
    pages.check(block)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("sh", "layeralign scan --model M --cases c --out o --bogus 1\n"),
        ("sh", "layeralign scna\n"),
        ("sh", "layeralign scan --model M --cases c\n"),
        ("sh", "make nothing\n"),
        ("sh", "python benchmarks/nothing.py\n"),
        ("sh", "echo 'open\n"),
        ("python", "import layeralign\nlayeralign.scam()\n"),
        ("python", "import layeralign\nlayeralign.scan('m', 'c', 'o', exit='all')\n"),
        ("python", "from layeralign.training.settings import Setting\n"),
        ("python", "for\n"),
        ("json", "{a: 1}\n"),
        ("toml", "a = \n"),
    ],
)
def test_a_wrong_block_is_found(language, text):
    with pytest.raises((Exception, SystemExit)):
        pages.check(pages.Block(pages.ROOT / "README.md", 1, language, (), text))


@pytest.mark.slow
def test_costs_are_those_by_hand(tmp_path):
    """LLaVA-1.5-7B: 2 · 32 · 4096 numbers of 2 bytes a token; LoRA of rank 16 on every linear layer, 40.0 M as PEFT
    tells; 640 tokens take what benchmarks/exit_cost.py counts: 2 · 640 · 32 · (4 · 4096² + 3 · 4096 · 11008) and attention."""
    known = json.loads((pages.ROOT / "tests" / "configs" / "published.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(known["llava-hf/llava-1.5-7b-hf"]))
    text = costs.language(empty(tmp_path))
    assert text.cache(1, 0) == 524288 and text.lora == 39_976_960
    assert text.forward(640, 0) == 2 * 640 * 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 4 * 640**2 * 4096 * 32
