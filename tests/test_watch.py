"""A watch of the approved exit: what it notices, and how often it is wrong."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import layeralign
from layeralign import LayeralignError
from layeralign.cli import main
from layeralign.testbed import cases as testbed
from layeralign.watching import Watch, _distances, fit, learn, pool


def usual(n, width=6, seed=0):
    """Correlated pooled features."""
    rng = torch.Generator().manual_seed(seed)
    mix = torch.randn(2 * width, 2 * width, generator=torch.Generator().manual_seed(9))
    return torch.randn(n, 2 * width, generator=rng) @ mix + 3


def test_a_picture_is_pooled_to_mean_and_deviation():
    assert pool(torch.tensor([[1.0, 2.0], [3.0, 2.0]])).tolist() == [2.0, 2.0, 1.0, 0.0]


def test_the_score_is_the_mahalanobis_distance_of_the_factor_model():
    pooled = usual(24)
    watch = fit(pooled, 0.2)
    k, d = len(watch.variances), pooled.shape[1]
    scaled = ((pooled[::2] - watch.mean) / watch.scale).double().numpy()
    values, vectors = np.linalg.eigh(np.cov(scaled.T))
    top, rest = vectors[:, -k:], values[:-k].mean()
    covariance = top @ np.diag(values[-k:]) @ top.T + rest * (np.eye(d) - top @ top.T)
    z = ((pooled[1] - watch.mean) / watch.scale).double().numpy()
    assert k == 3 and float(_distances(watch, pooled[1:2])) == pytest.approx(
        np.sqrt(z @ np.linalg.inv(covariance) @ z / d), rel=1e-3
    )


def test_false_alarms_are_as_promised():
    """Over many watches, a new usual picture is above the limit with a probability of at most alpha."""
    shares = []
    for seed in range(60):
        watch = fit(usual(100, seed=seed), 0.1)
        shares.append(float((_distances(watch, usual(400, seed=1000 + seed)) > watch.limit).float().mean()))
    assert np.mean(shares) < 0.1 + 3 * np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) > 0.04  # nor is the limit far too high


@pytest.mark.slow
def test_too_few_pictures_are_refused(tmp_path):
    with pytest.raises(LayeralignError, match="have 100 different pictures; expected at least 198"):
        fit(usual(100))
    with pytest.raises(LayeralignError, match="alpha 2: expected a share"):
        layeralign.watch("testbed", testbed.cases("dev", 4, 0), tmp_path / "w", alpha=2)
    with pytest.raises(LayeralignError, match="exit 0-3: names 4 exits; expected one"):
        layeralign.watch("testbed", testbed.cases("dev", 4, 0), tmp_path / "w", exit="0-3")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    file = tmp_path_factory.mktemp("watch") / "watch.safetensors"
    return file, layeralign.watch("testbed", testbed.cases("dev", 300, 0), file, alpha=0.05)


@pytest.mark.slow
def test_far_exits_are_noticed_and_the_file_comes_back(made):
    file, watch = made
    again = Watch.load(file)
    model = layeralign.load("testbed")
    picture = next(case.picture for case in testbed.cases("dev", 900, 0)[600:] if case.picture).open()
    at = {exit: features[0].tokens for exit, features in model.encode([picture], model.exits.all).items()}
    assert [again.score(at[e]) for e in at] == pytest.approx([watch.score(at[e]) for e in at], rel=1e-4)
    assert again.usual(at[7]) and not again.usual(at[0]) and not again.usual(at[8])
    assert not again.usual(at[7] * float("nan"))
    noticed = watch.about["noticed"]
    assert noticed["0"] > 0.9 and noticed["8"] > 0.9 and "7" not in noticed
    assert repr(watch).startswith("<Watch: testbed, exit 7, ") and again.about == watch.about
    with pytest.raises(LayeralignError, match="have width 3; expected 128"):
        again.score(torch.zeros(4, 3))


@pytest.mark.slow
def test_a_numerical_failure_is_noticed_and_not_approved(tmp_path, monkeypatch):
    """An exit of NaN counted as one that is never noticed; at the watched exit it was a bug."""
    vlm = layeralign.load("testbed")
    own = vlm.encode

    def encode(pictures, exits):
        made = own(pictures, exits)
        return made | {0: [replace(one, tokens=one.tokens * float("nan")) for one in made[0]]}

    monkeypatch.setattr(vlm, "encode", encode, raising=False)
    asked = testbed.cases("dev", 60, 0)
    assert learn(vlm, asked, 7, 0.1).about["noticed"]["0"] == 1.0
    with pytest.raises(LayeralignError, match=r"pictures are not finite at exit 0 \(float32\)"):
        learn(vlm, asked, 0, 0.1)


@pytest.mark.slow
def test_the_command_says_what_it_would_notice(tmp_path, capsys):
    out = tmp_path / "w.safetensors"
    words = ["watch", "--model", "testbed", "--cases", "testbed", "--limit", "120", "--alpha", "0.05"]
    assert main([*words, "--exit", "3", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "watch of exit 3" in said and "noticed %" in said and Watch.load(out).about["exit"] == "3"


@pytest.mark.parametrize("content", [b"", b"{}", None])
def test_a_broken_file_is_one_sentence(tmp_path, content):
    file = tmp_path / "w.safetensors"
    if content is None:
        save_file({"mean": torch.zeros(2)}, file, {"about": json.dumps({})})
    else:
        file.write_bytes(content)
    with pytest.raises(LayeralignError, match="cannot be read; make it with layeralign watch"):
        Watch.load(file)


@pytest.mark.parametrize(
    ("tensors", "about"),
    [
        ({}, {"limit": "inf"}),  # every picture would be usual
        ({}, {"limit": "nan"}),
        ({}, {"rest": "-1.0"}),
        ({}, {"about": "[]"}),
        ({}, {"about": "[" * 100_000}),
        ({"scale": torch.full((12,), torch.inf)}, {}),  # so would every one here
        ({"scale": -torch.ones(12)}, {}),
        ({"mean": torch.zeros(3)}, {}),
        ({"variances": torch.zeros(3)}, {}),
        ({"factors": torch.zeros(3, 11)}, {}),
        ({"mean": torch.zeros(12, dtype=torch.int64)}, {}),
    ],
)
def test_values_that_no_watch_has_are_refused(tmp_path, tensors, about):
    watch = fit(usual(24), 0.2)
    good = {name: getattr(watch, name) for name in ("mean", "scale", "factors", "variances")}
    records = {"model": "m", "exit": "7", "pictures": 24, "noticed": {}}
    said = {"about": json.dumps(records), "rest": repr(watch.rest), "limit": repr(watch.limit)}
    save_file(good, tmp_path / "good", said)
    assert Watch.load(tmp_path / "good").limit == watch.limit
    save_file(good | tensors, tmp_path / "bad", said | about)
    with pytest.raises(LayeralignError, match="cannot be read; make it with layeralign watch"):
        Watch.load(tmp_path / "bad")


def test_a_watch_replaces_a_watch_alone(tmp_path):
    watch = replace(fit(usual(24), 0.2), about={"noticed": {}, "model": "m", "exit": "2", "pictures": 24})
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(LayeralignError, match=r"model.safetensors: exists and is no watch"):
        watch.save(tmp_path / "model.safetensors")
    for _ in range(2):
        watch.save(tmp_path / "watch.safetensors")


@pytest.mark.slow
def test_a_pipe_is_no_watch_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    code = "import sys; from layeralign.watching import Watch; Watch.load(sys.argv[1])"
    made = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "pipe")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "pipe: cannot be read; make it with layeralign watch" in made.stderr


@pytest.mark.parametrize("alpha", [0, 1, -1, 5e-324, 1e-7, float("nan"), float("inf")])
def test_a_share_of_false_alarms_that_is_none_is_refused(alpha):
    with pytest.raises(LayeralignError, match="expected a share from 1e-06 to below 1"):
        learn(None, [], 7, alpha)


@pytest.mark.slow
def test_a_server_needs_no_model_to_watch():
    code = "import sys; from layeralign.watching import Watch; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
