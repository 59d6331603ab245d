"""What a plan says before a run, by hand and by simulation."""

import json

import numpy as np
import pytest

from layeralign import LayeralignError
from layeralign.analysis.plan import plan
from layeralign.cases.case import Case
from layeralign.cli import main
from layeralign.report.terminal.plan import lines
from layeralign.runs import opening
from layeralign.runs.store import Row
from layeralign.stats.clusters import cluster
from layeralign.stats.paired import Pairs, p_value
from layeralign.stats.proportions import wilson
from layeralign.testing import _Shown, noise


def harmful(n, prompts=None, pictures=None):
    shown = [_Shown(noise(9, 9 + at)) for at in range(pictures or 0)]
    return [
        Case(f"h{i}", f"prompt {i % (prompts or n)}", "harmful", shown[i // (n // pictures)] if pictures else None)
        for i in range(n)
    ]  # fmt: skip


def test_what_is_asked_by_hand():
    made = plan([*harmful(100), Case("b", "hi", "benign")], exits=4, samples=3, share=0.5, rate=10)
    assert (made.cases, made.harmful, made.prompts, made.pictures, made.least) == (101, 100, 100, 0, 100)
    assert (made.rows, made.seconds) == (101 * 4 * 3, 121.2)
    shared = plan(harmful(9), exits=4, rate=10, workers=3, price=60)
    assert (shared.seconds, shared.cost) == (1.2, pytest.approx(3 * 60 * 1.2 / 3600)) and made.cost is None
    low, high = wilson(50, 100)
    assert made.half_width == made.half_width_cautious == pytest.approx((high - low) / 2)
    assert (made.best_discordant, made.cautious_discordant) == (0.05, pytest.approx(0.5 * 0.45 + 0.55 * 0.5))


@pytest.mark.parametrize(
    ("prompts", "pictures", "least"),
    [(100, 0, 100), (10, 0, 10), (10, 10, 10), (20, 5, 5), (100, 1, 100), (1, 50, 50), (1, 100, 100)],
)
def test_cases_that_share_prompts_or_pictures_say_less(prompts, pictures, least):
    """10 prompts × 10 pictures may say no more than ten cases; one picture for all is no cluster."""
    made = plan(harmful(100, prompts, pictures), exits=2)
    assert (made.harmful, made.prompts, made.pictures, made.least) == (100, prompts, pictures, least)
    low, high = wilson(least / 10, least)
    assert (
        made.half_width_cautious == pytest.approx((high - low) / 2)
        and made.half_width <= made.half_width_cautious
    )


def test_the_best_case_by_hand():
    """One other exit, every pair that differs goes one way: n with P(Bin(n, 0.5) ≥ 5) ≥ 0.8, as 1/2⁵ < 0.05 < 1/2⁴."""
    made = plan(harmful(9), exits=2, share=0, difference=0.5)
    assert made.default.alpha == 0.05 and made.default.tests == 1
    from scipy.stats import binom

    assert made.default.best == next(n for n in range(1, 99) if binom.sf(4, n, 0.5) >= 0.8) == 12


@pytest.mark.parametrize(("exits", "share", "difference"), [(2, 0.1, 0.1), (13, 0.1, 0.1), (25, 0.05, 0.2)])
def test_the_test_of_the_summary_sees_it_as_often_as_planned(exits, share, difference):
    made = plan(harmful(9), exits, share=share, difference=difference)
    rng, runs = np.random.default_rng(exits), 400
    for n, changed in (
        (made.default.best, made.best_discordant),
        (made.default.cautious, made.cautious_discordant),
    ):
        up, down = (changed + difference) / 2, (changed - difference) / 2
        alone, seen = cluster(range(n), [None] * n), 0
        for row in rng.choice(3, (runs, n), p=[1 - up - max(0, down), up, max(0, down)]):
            pairs = Pairs((row == 2).astype(float), (row == 1).astype(float), alone, n)
            seen += p_value(pairs, "greater").p * (exits - 1) < 0.05
        print(f"{exits} exits, {share} and {difference} more, {n} cases: power {seen / runs:.3f}")
        assert 0.74 <= seen / runs <= 0.92


@pytest.mark.slow
def test_more_tests_need_more_cases():
    few, many = (plan(harmful(9), exits) for exits in (3, 30))
    assert many.default.best > few.default.best and many.runs.cautious > few.runs.cautious
    assert (many.default.tests, many.runs.tests, many.runs.one_sided) == (29, 30, False)
    assert plan(harmful(9), 1).default is None
    assert plan(harmful(9), 3, with_default=False).default is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"difference": 0}, "difference has to lie above 0"),
        ({"difference": 0.95}, "larger_share has to lie between 0 and 1"),
        ({"share": -0.1}, "share has to lie between 0 and 1"),
        ({"power": 1}, "alpha < power < 1"),
        ({"power": 0.01}, "alpha < power < 1"),
        ({"difference": 1e-7}, "1000000"),
        ({"rate": 0}, "rate 0: expected rows per second"),
        ({"rate": float("nan")}, "rate nan: expected rows per second"),
        ({"rate": float("inf")}, "rate inf: expected rows per second"),
        ({"rate": 5e-324}, "rate 5e-324: expected rows per second, 1e-09 to 1,000,000,000"),
        ({"samples": 0}, "samples 0: expected 1 to 1,000,000,000"),
        ({"workers": 0}, "workers 0: expected 1 to 1,000,000,000"),
        ({"workers": 10**400, "rate": 1}, "000: expected 1 to 1,000,000,000"),
        ({"price": 1}, "price 1: expected 0 to 1,000,000,000, and a rate"),
        ({"price": -1, "rate": 1}, "price -1: expected 0 to"),
        ({"price": float("nan"), "rate": 1}, "price nan: expected 0 to"),
        ({"price": float("inf"), "rate": 1}, "price inf: expected 0 to"),
    ],
)
def test_impossible(given, said):
    with pytest.raises(LayeralignError, match=said):
        plan(harmful(9), 3, **given)


def test_no_harmful_case_and_no_rate_are_said():
    made = plan([Case("b", "hi", "benign")], 3)
    assert made.half_width is None and made.seconds is None
    assert "no rate is known" in " ".join(lines(made, ""))


# --- the command


@pytest.fixture
def run(tmp_path):
    """Two sessions: 30 rows in 10 s, 10 rows in 10 s; a third that was stopped at once."""
    with opening.create(tmp_path / "run", "m", {}, {"layers": 4, "default": 3}) as made:
        made.add_cases(harmful(40))
        for rows, seconds in (((0, 30), 10.0), ((30, 40), 10.0)):
            session = made.add_session(f"2026-01-01T00:00:{rows[0]}", "scan", {})
            made.add_answers([Row(f"h{i}", 3, "x", 1, "stop") for i in range(*rows)], session, seconds)
        made.add_session("2026-01-02", "scan", {})
    return tmp_path / "run"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text(
        "".join(json.dumps({"id": c.id, "prompt": c.prompt, "kind": c.kind}) + "\n" for c in harmful(200))
    )
    return path


def test_a_runs_rate_and_exits(run, file, capfd):
    assert main(["plan", "--cases", str(file), "--like", str(run), "--json"]) == 0
    made = json.loads(capfd.readouterr().out)
    assert (made["exits"], made["rows"], made["rate"], made["seconds"]) == (5, 1000, 2.0, 500.0)
    assert made["default"]["tests"] == 4
    assert main(["plan", "--cases", str(file), "--like", str(run), "--exits", "1,2"]) == 0
    out = capfd.readouterr().out
    assert "3.3 min at 2.00 a second (as in" in out and "an exit and the default" not in out


def test_the_rate_is_that_of_one_worker(run, file, capfd):
    """A cluster's rate was multiplied by the workers once more."""
    with opening.open_run(run, write=True) as made:
        session = made.add_session("2026-01-03", "scan --ray auto", {"workers": "4"})
        made.add_answers([Row(f"h{i}", 2, "x", 1, "stop") for i in range(40)], session, 5.0)
    assert main(["plan", "--cases", str(file), "--like", str(run), "--workers", "4", "--json"]) == 0
    made = json.loads(capfd.readouterr().out)
    assert (made["rate"], made["seconds"]) == (2.0, 125.0)


@pytest.mark.slow
def test_a_models_config_is_enough_and_its_rate_is_measured(llava_dir, case_file, tmp_path, capfd):
    asked = ["plan", "--cases", str(case_file), "--model", str(llava_dir)]
    assert main([*asked, "--json"]) == 0
    made = json.loads(capfd.readouterr().out)
    assert (made["exits"], made["rate"], made["seconds"]) == (6, None, None)
    quick = ["--measure", "--max-new-tokens", "4", "--exits", "default,1"]
    assert main([*asked, *quick]) == 0
    assert "a second (measured)" in capfd.readouterr().out
    benign = tmp_path / "benign.jsonl"  # a benign case comes first, which no sequential scan has alone
    benign.write_text("".join(case_file.read_text().splitlines(keepends=True)[2:]))
    alone = ["plan", "--cases", str(benign), "--model", str(llava_dir), "--precision", "0.1"]
    assert main([*alone, *quick]) == 0
    assert "a second (measured)" in capfd.readouterr().out
    assert main([*asked, "--rate", "0.5"]) == 0
    out = capfd.readouterr().out
    assert "6 cases × 6 exits × 1 sample = 36 answers, 72 s at 0.50 a second (as given)" in out
    out = " ".join(out.split())
    assert "an exit and the default" in out and "(too few)" in out
    (tmp_path / "plan.yaml").write_text("rate: 0.5\n")
    assert main([*asked, "--config", str(tmp_path / "plan.yaml")]) == 0
    assert "at 0.50 a second (as given)" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rate", "1"], "expected --model or --like"),
        (["--like", "RUN", "--rate", "1"], "expected one of --like, --rate and --measure"),
        (["--like", "/nope"], "is not a run"),
        (["--model", "MODEL", "--exits", "99"], "out of range"),
        (["--measure"], "expected --model"),
        (["--model", "MODEL", "--difference", "2"], "larger_share"),
        (["--like", "OLD"], "has no timings"),
    ],
)
def test_bad_arguments_are_one_sentence(run, file, llava_dir, tmp_path, capfd, arguments, says):
    opening.create(tmp_path / "old", "m", {}, {"layers": 4, "default": 3}).close()
    names = {"RUN": str(run), "MODEL": str(llava_dir), "OLD": str(tmp_path / "old")}
    assert main(["plan", "--cases", str(file), *(names.get(a, a) for a in arguments)]) == 1
    err = capfd.readouterr().err
    assert says in err and err.count("\n") == 1


def test_a_config_file_plans(run, file, tmp_path, capfd):
    (tmp_path / "p.yaml").write_text(
        f"cases: {file}\nlike: {run}\nshare: 0.2\ndifference: 0.1\nsamples: 2\ntemperature: 0.7\n"
    )
    assert main(["plan", "--config", str(tmp_path / "p.yaml")]) == 0
    assert "200 cases × 5 exits × 2 samples = 2,000 answers" in capfd.readouterr().out
