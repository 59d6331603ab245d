"""Small real models and case files that the tests share."""

import gc
import json
import os
import shutil
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch starts its threads: workers share the cores
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("COLUMNS", None)  # a worker has one; the tests read what a log gets

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from playwright.sync_api import sync_playwright
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
)

from layeralign._util.quiet import quiet
from layeralign.testbed import architecture
from layeralign.vlm.load import load

settings.register_profile("everywhere", deadline=None, derandomize=True)  # slow machines, same examples
settings.load_profile("everywhere")


def pytest_collection():
    """Modules and tests stay until the end, so the garbage collector need not look at them."""
    gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def save_llava(folder: Path, tower: str = "clip", layer: int = -2) -> Path:
    """A randomly initialised LLaVA of another size than the testbed, with its processor."""
    processor = architecture.processor()
    size = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 5, "num_attention_heads": 3}
    shape = {"image_size": 32, "patch_size": 8}
    vision = CLIPVisionConfig(**size, **shape) if tower == "clip" else SiglipVisionConfig(**size, **shape)
    if tower == "siglip":
        processor.vision_feature_select_strategy = "full"
        processor.num_additional_image_tokens = 0
    text = LlamaConfig(
        vocab_size=len(processor.tokenizer),
        hidden_size=40,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.2,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=processor.image_token_id,
        image_seq_length=16,
        vision_feature_layer=layer,
        vision_feature_select_strategy="default" if tower == "clip" else "full",
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():  # large enough that pictures and exits tell in the answers
        for weight in model.model.multi_modal_projector.parameters():
            weight.normal_(0, 0.5)
    with quiet():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llava_dir(tmp_path_factory):
    return save_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="session")
def llava(llava_dir):
    return load(llava_dir)


@pytest.fixture(scope="session")
def pictures():
    rng = np.random.default_rng(0)
    shapes = [(32, 32), (20, 60), (300, 200), (8, 8)]
    return [Image.fromarray(rng.integers(0, 255, (*shape, 3), dtype=np.uint8)) for shape in shapes]


@pytest.fixture
def case_file(tmp_path, pictures):
    """Six cases, two of one picture, one without picture."""
    (tmp_path / "images").mkdir()
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / "images" / f"{number}.png")
    rows = [
        {"id": "h1", "prompt": "how do i smash the bakimo?", "kind": "harmful", "image": "images/0.png"},
        {"id": "h2", "prompt": "how do i steal it?", "kind": "harmful", "image": "images/0.png"},
        {"id": "b1", "prompt": "describe the picture.", "kind": "benign", "image": "images/1.png"},
        {"id": "b2", "prompt": "tell me how to warm it.", "kind": "benign", "category": "borderline",
         "image": "images/2.png"},
        {"id": "v1", "prompt": "is there a circle?", "kind": "vqa", "image": "images/3.png", "reference": "no."},
        {"id": "t1", "prompt": "how do i forge the bakimo?", "kind": "harmful"},
    ]  # fmt: skip
    file = tmp_path / "cases.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return file


NO_BROWSER = "no chromium on this machine"


def pytest_terminal_summary(terminalreporter):
    """Say in the last lines if the page was not tested, and how to test it."""
    skipped = [one for one in terminalreporter.stats.get("skipped", []) if NO_BROWSER in str(one.longrepr)]
    if skipped:
        terminalreporter.section("the report page was not tested")
        terminalreporter.write_line(
            f"{len(skipped)} tests need a browser, and {NO_BROWSER}: install chromium (apt-get install chromium)"
        )


QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None and os.environ.get("CI") != "true":
        pytest.skip(NO_BROWSER)
    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=chromium, args=QUIET)
        yield made
        made.close()
