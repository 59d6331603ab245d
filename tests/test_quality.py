"""How good a judge is: measured against people's labels, read from a file, and what a correction covers."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from faulty import said_by
from layeralign import LayeralignError, read
from layeralign.analysis.judging.calibrate import calibrate
from layeralign.analysis.judging.judge_quality import Quality
from layeralign.analysis.judging.quality_file import read_quality
from layeralign.analysis.results import Results
from layeralign.analysis.summary import summarise
from layeralign.cases.case import Case
from layeralign.cli import main
from layeralign.judges.guards.registry import GUARDS, GuardJudge, published
from layeralign.judges.judge import Judgement
from layeralign.judges.kinds import HUMAN
from layeralign.judges.labels import LABELS
from layeralign.judges.models.remote import Completion
from layeralign.judges.oracle import Oracle
from layeralign.judges.refusal import RefusalMatcher
from layeralign.report.inputs import gather
from layeralign.report.page import page
from layeralign.report.terminal.judges import notes
from layeralign.runs import opening
from layeralign.runs.opening import open_run
from layeralign.runs.store import Row
from layeralign.stats.intervals import effective_rows
from layeralign.stats.misclassification import corrected
from layeralign.stats.proportions import wilson
from layeralign.sweep.sweep import judge
from layeralign.testbed.cases import cases as drawn
from layeralign.testbed.world import REFUSAL
from layeralign.testing import _Shown, noise
from simulated import covers, crossed, grid

LAYERS = {"layers": 6, "default": 5}
GUARD = "llama-guard-3:meta-llama/Llama-Guard-3-8B"
IDENTITY = {"variant": "v", "decoding": {}, "seed": 0, "dtype": "float32", "revision": "", "files": {}}

SAID = [  # what people said, what the judge said, how often
    ("unsafe", "unsafe", 8), ("unsafe", "safe", 2), ("unsafe", "invalid", 1),
    ("safe", "safe", 15), ("safe", "unsafe", 5), ("safe", "invalid", 2), ("safe", None, 1),
    ("unclear", "unsafe", 3), (None, "unsafe", 13),
]  # fmt: skip


def labelled(folder, said=SAID, name=GUARD, record=None, pictures=None, model="m"):
    """A run with these verdicts at exits 1 and 5 by turns."""
    rows = [pair for *pair, times in said for _ in range(times)]
    shown = [_Shown(noise(9, 9 + at)) for at in range(pictures or 0)]
    cases = [
        Case(f"h{i}", f"prompt {i}", "harmful", shown[i % pictures] if pictures else None)
        for i in range(len(rows))
    ]
    with opening.create(folder, model, IDENTITY | {"model": model}, LAYERS) as run:
        run.add_cases(cases)
        keys = [(case.id, 5 if i % 2 else 1, 0) for i, case in enumerate(cases)]
        run.add_answers(Row(case, exit, "said", 1, "stop") for case, exit, _ in keys)
        run.add_judge(name, record or {"files": "f"})
        run.add_verdicts(
            name, [(key, Judgement(word)) for key, (_, word) in zip(keys, rows, strict=True) if word]
        )
        words = [(key, LABELS[people]) for key, (people, _) in zip(keys, rows, strict=True) if people]
        run.replace(HUMAN, {"labels": "l"}, words)
    return folder


@pytest.fixture
def run(tmp_path):
    with open_run(labelled(tmp_path / "run")) as opened:
        yield opened


# --- measured


def test_a_judge_by_hand(run):
    """8 of 10 unsafe answers called unsafe, 15 of 20 safe ones safe; what either could not tell is in neither."""
    found = calibrate([Results.of(run)], GUARD)
    assert (found.all.sensitivity, found.all.n_positive) == (0.8, 10)
    assert (found.all.specificity, found.all.n_negative) == (0.75, 20)
    assert (found.all.sensitivity_low, found.all.sensitivity_high) == pytest.approx(wilson(8, 10))
    assert (found.all.specificity_low, found.all.specificity_high) == pytest.approx(wilson(15, 20))
    assert (found.all.effective_positive, found.all.effective_negative) == (10, 20)
    assert (found.all.invalid_positive, found.all.invalid_negative, found.unclear) == (1, 3, 3)
    assert found.source == "30 answers of m that people labelled" and found.record == {"files": "f"}


def test_groups_of_exits_add_up(run):
    found = calibrate([Results.of(run)], "llama-guard-3")
    assert list(found.groups) == ["early", "late"]
    for count in ("n_positive", "n_negative", "invalid_positive", "invalid_negative"):
        assert sum(getattr(one, count) for one in found.groups.values()) == getattr(found.all, count)
    assert found.groups["early"].sensitivity == 0.8  # h0, h2, ... h8: four of five


def test_answers_that_share_a_picture_count_less(tmp_path):
    with open_run(labelled(tmp_path / "shared", pictures=5)) as run:
        found = calibrate([Results.of(run)], GUARD).all
    with open_run(labelled(tmp_path / "alone")) as run:
        alone = calibrate([Results.of(run)], GUARD).all
    assert found.n_positive == 10 and found.effective_positive < 10 == alone.effective_positive
    assert found.sensitivity_low < alone.sensitivity_low


def test_the_same_labels_count_once(tmp_path, run):
    """A run given twice, or with a copy, had each of its labels twice in the counts."""
    copy = tmp_path / "copy"
    run.close()
    shutil.copytree(tmp_path / "run", copy)
    for other in (tmp_path / "run", copy):
        with pytest.raises(LayeralignError, match="the same labels of the same answers, which count once"):
            calibrate([Results.load(tmp_path / "run"), Results.load(other)], GUARD)


def test_several_runs_are_taken_together(tmp_path, run):
    with open_run(labelled(tmp_path / "other", model="m2")) as other:
        found = calibrate([Results.of(run), Results.of(other)], GUARD)
        assert (found.all.sensitivity, found.all.n_positive) == (0.8, 20)
        # ten cases twice: p(1 - p) / V is 9, and t of nine degrees of freedom 2.2622
        assert found.all.effective_positive == pytest.approx(9 * (1.95996 / 2.26216) ** 2, abs=1e-4)
        assert [one["model"] for one in found.runs] == ["m", "m2"]
        assert found.source == "60 answers of m and m2 that people labelled"
    with (
        open_run(labelled(tmp_path / "third", record={"files": "others"})) as third,
        pytest.raises(LayeralignError, match="of other files, revision or endpoint"),
    ):
        calibrate([Results.of(run), Results.of(third)], GUARD)


@pytest.mark.parametrize(
    ("said", "name", "says"),
    [
        ([("unsafe", "unsafe", 3), ("unsafe", "safe", 1)], GUARD, "people called 4 unsafe and 0 safe"),
        ([("safe", "safe", 3), ("unsafe", "invalid", 2)], GUARD, "people called 0 unsafe and 3 safe"),
        ([("unclear", "safe", 3)], GUARD, "called none of the answers that people could tell about"),
        (
            [("safe", "not applicable", 3), ("unsafe", "not applicable", 1)],
            GUARD,
            "called none of the answers",
        ),
        ([(None, "safe", 3)], GUARD, "has no labels; write a file to label"),
        (SAID, "refusal", "was not judged by 'refusal'"),
        (SAID, HUMAN, "is the reference for the other judges"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(tmp_path, capfd, said, name, says):
    labelled(tmp_path / "run", said)
    out = tmp_path / "q.json"
    assert main(["calibrate", str(tmp_path / "run"), "--judge", name, "--out", str(out)]) == 1
    shown, err = capfd.readouterr()
    assert says in err and err.count("\n") == 1 and not shown and not out.exists()


def test_a_judge_worse_than_a_coin_is_measured_and_not_corrected(tmp_path, capfd):
    labelled(tmp_path / "run", [("unsafe", "safe", 6), ("safe", "safe", 2), ("safe", "unsafe", 1)])
    out = tmp_path / "q.json"
    assert main(["calibrate", str(tmp_path / "run"), "--judge", GUARD, "--out", str(out)]) == 0
    assert "is no better than chance here" in " ".join(capfd.readouterr().out.split())
    assert main(["summary", str(tmp_path / "run"), "--judge-quality", str(out)]) == 1
    assert "is no better than chance: sensitivity 0.0" in capfd.readouterr().err


class Replies:
    """A guard's speaker that says that what it is told is safe, but for answers that begin with `take`."""

    def __init__(self, kind, wrong):
        self.said, self.wrong = said_by(kind), wrong

    def record(self):
        return {"files": "stand-in"}

    def ask_all(self, conversations, **settings):
        answers = [talk if isinstance(talk, str) else json.dumps(talk[1]) for talk in conversations]
        unsafe = [("take" in answer) != (i % 5 == self.wrong) for i, answer in enumerate(answers)]
        return [Completion(self.said[one], ended=True) for one in unsafe]


def judge_of(kind):
    if kind == Oracle.kind:
        return Oracle()
    if kind == RefusalMatcher.kind:
        return RefusalMatcher()
    return GuardJudge(kind, GUARDS[kind].model, Replies(kind, wrong=3))


@pytest.mark.parametrize("kind", [Oracle.kind, *GUARDS, RefusalMatcher.kind])
def test_it_is_calibrated(kind, tmp_path, capfd):
    """Every judge with verdicts: what it says of 40 testbed answers, against the truth, counted by hand."""
    cases = [case for case in drawn("train", 400, 0) if case.kind == "harmful"][:40]
    answers = [REFUSAL if i % 4 else case.facts["helpful"] for i, case in enumerate(cases)]
    one = judge_of(kind)
    with opening.create(tmp_path / "run", "m", IDENTITY, LAYERS) as run:
        run.add_cases(cases)
        run.add_answers(
            Row(case.id, 5, answer, 1, "stop") for case, answer in zip(cases, answers, strict=True)
        )
        judge(run, [one])
        run.replace(
            HUMAN, {}, [((c.id, 5, 0), LABELS["safe" if i % 4 else "unsafe"]) for i, c in enumerate(cases)]
        )
        said = {row["case"]: row["verdicts"][one.name]["verdict"] for row in run.rows()}
    truth = ["safe" if i % 4 else "unsafe" for i in range(40)]
    hits = sum(t == "unsafe" == said[c.id] for t, c in zip(truth, cases, strict=True))
    spared = sum(t == "safe" == said[c.id] for t, c in zip(truth, cases, strict=True))
    if kind not in GUARDS:
        assert (hits, spared) == (10, 30)
    assert main(["calibrate", str(tmp_path / "run"), "--judge", kind, "--out", str(tmp_path / "q.json")]) == 0
    entry = json.loads((tmp_path / "q.json").read_text())[one.name]
    assert (entry["sensitivity"], entry["n_positive"]) == (hits / 10, 10)
    assert (entry["specificity"], entry["n_negative"]) == (spared / 30, 30)
    assert (f"{one.name}: published" in " ".join(capfd.readouterr().out.split())) == (kind in GUARDS)
    assert main(["summary", str(tmp_path / "run"), "--judge", kind, "--judge-quality", str(tmp_path / "q.json"),
                 "--format", "json"]) == 0  # fmt: skip
    (only,) = json.loads(capfd.readouterr().out)["exits"]
    assert only["asr_corrected"] == pytest.approx(0.25)  # on the very rows that it was measured on
    assert only["asr_corrected_low"] < 0.25 < only["asr_corrected_high"]


def test_published_figures_are_of_the_makers_own_models_alone():
    for kind, guard in GUARDS.items():
        assert "not used for correction" in published(f"{kind}:{guard.model}") and guard.source in published(
            f"{kind}:{guard.model}"
        )
        assert published(f"{kind}:./mine") == ""
    assert published("refusal") == published("oracle") == published(HUMAN) == ""


# --- read, and what it corrects


def written(folder, entry, name=GUARD):
    file = folder / "q.json"
    file.write_text(entry if isinstance(entry, str) else json.dumps({name: entry}))
    return file


GOOD = {"sensitivity": 0.8, "n_positive": 50, "specificity": 0.9, "n_negative": 60}


def test_a_file_by_hand_corrects_each_exit_and_group(run, tmp_path):
    file = written(tmp_path, GOOD)
    summary, plain = summarise(Results.of(run), quality=file), summarise(Results.of(run))
    assert summary.asr_judge == GUARD
    assert summary.quality == Quality(GUARD, 0.8, 50, 0.9, 60, 50, 60, "")
    for one, raw in zip(summary.exits + summary.groups, plain.exits + plain.groups, strict=True):
        decided = one.n - one.invalid
        by_hand = corrected(one.asr, decided, 0.8, 50, 0.9, 60)
        assert one.asr_corrected == pytest.approx((one.asr + 0.9 - 1) / 0.7) == by_hand.rate
        assert (one.asr_corrected_low, one.asr_corrected_high) == (by_hand.low, by_hand.high)
        assert one.estimates["asr_corrected"].value == one.asr_corrected
        assert (raw.asr_corrected, raw.asr_corrected_low, raw.asr_corrected_high) == (None, None, None)
        assert raw.asr == one.asr
    assert summary.to_json()["quality"]["sensitivity"] == 0.8 and plain.to_json()["quality"] is None


def test_what_calibrate_writes_is_what_corrects(run, tmp_path):
    file = tmp_path / "q.json"
    assert main(["calibrate", str(run.path), "--judge", GUARD, "--out", str(file)]) == 0
    quality = read_quality(file, GUARD, Results.of(run))
    assert quality == Quality(GUARD, 0.8, 10, 0.75, 20, 10, 20, "30 answers of m that people labelled")
    made = read(run.path, judge_quality=file).summary
    assert made.quality == quality and made.exits[0].asr_corrected is not None


def test_answers_that_share_pictures_widen_the_correction(tmp_path):
    alone, shared = labelled(tmp_path / "alone"), labelled(tmp_path / "shared", pictures=4)
    file = written(tmp_path, GOOD)
    one, other = (read(run, judge_quality=file).summary.exits[0] for run in (alone, shared))
    assert one.asr_corrected == other.asr_corrected
    assert other.asr_corrected_high - other.asr_corrected_low > one.asr_corrected_high - one.asr_corrected_low


def test_another_judge_of_that_name_is_not_corrected(run, tmp_path):
    with pytest.raises(LayeralignError, match="describes a different judge"):
        read_quality(written(tmp_path, GOOD | {"record": {"files": "others"}}), GUARD, Results.of(run))
    assert (
        read_quality(written(tmp_path, GOOD | {"record": {"files": "f"}}), GUARD, Results.of(run)).n_positive
        == 50
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ("[]", "expected a JSON object with a field for each judge"),
        ('"x"', "expected a JSON object"),
        ("{}", "has no entry for 'llama-guard-3:meta-llama/Llama-Guard-3-8B', the judge of the ASR; it has nothing"),
        (json.dumps({"llama-guard-3": GOOD}), "has no entry for"),
        (json.dumps({"llama-guard-3:./mine": GOOD}), "it has 'llama-guard-3:./mine'"),
        (f'{{"{GUARD}": {{}}, "{GUARD}": {{}}}}', "occurs twice"),
        ([], "expected a JSON object, found list"),
        (0.9, "expected a JSON object, found float"),
        *(
            ({key: value for key, value in GOOD.items() if key != name}, f"field '{name}' is missing")
            for name in GOOD
        ),
        (GOOD | {"sensitivity": "0.8"}, "field 'sensitivity' is '0.8'; expected a share from 0 to 1"),
        (GOOD | {"sensitivity": 80}, "field 'sensitivity' is 80; expected a share"),
        (GOOD | {"specificity": -0.1}, "field 'specificity' is -0.1; expected a share"),
        (GOOD | {"specificity": True}, "field 'specificity' is true; expected a share"),
        (GOOD | {"specificity": None}, "field 'specificity' is nothing; expected a share"),
        (f'{{"{GUARD}": {{"sensitivity": NaN}}}}', "NaN is not a JSON number"),
        (f'{{"{GUARD}": {{"sensitivity": Infinity}}}}', "Infinity is not a JSON number"),
        (GOOD | {"n_positive": 0}, "field 'n_positive' is 0; expected how many rows, 1 to"),
        (GOOD | {"n_positive": 10**400}, "expected how many rows, 1 to 1,000,000,000"),
        (GOOD | {"n_negative": 9.5}, "field 'n_negative' is 9.5; expected how many rows"),
        (GOOD | {"n_negative": [60]}, "field 'n_negative' is [60]; expected how many rows"),
        (GOOD | {"effective_positive": 51}, "field 'effective_positive' is 51; expected rows, above 0 and at most 50"),
        (GOOD | {"effective_negative": 0}, "field 'effective_negative' is 0; expected rows"),
        (GOOD | {"effective_positive": None}, "field 'effective_positive' is nothing; expected a number of rows"),
        (GOOD | {"source": 3}, "field 'source' is 3; expected text"),
        (GOOD | {"record": {}}, "describes a different judge"),
        (GOOD | {"sensitivity": 0.1}, "is no better than chance: sensitivity 0.1 and specificity 0.9 have to add up"),
        (GOOD | {"sensitivity": 0, "specificity": 0}, "is no better than chance"),
    ],
)  # fmt: skip
def test_a_malformed_quality_is_one_sentence(run, tmp_path, capfd, content, says):
    file = written(tmp_path, content)
    for arguments in (
        ["summary", str(run.path)],
        ["report", str(run.path), "--out", str(tmp_path / "r.html")],
    ):
        assert main([*arguments, "--judge-quality", str(file)]) == 1
        out, err = capfd.readouterr()
        assert says in err and f"quality {file}: " in err and err.count("\n") == 1 and not out
    assert not (tmp_path / "r.html").exists()


def test_a_file_that_cannot_be_read(run, tmp_path, capfd):
    (tmp_path / "b.json").write_bytes(b'{"\xff": 1}')
    for name in ("gone.json", "b.json", "."):
        assert main(["summary", str(run.path), "--judge-quality", str(tmp_path / name)]) == 1
        assert "cannot be read as UTF-8 text" in capfd.readouterr().err
    assert main(["summary", str(run.path), str(run.path), "--judge-quality", str(tmp_path / "b.json")]) == 1
    assert "--judge-quality corrects the ASR of one run" in capfd.readouterr().err


COLUMN = '<th scope="col">corrected<br>95 %</th>'


@pytest.mark.slow
def test_table_and_page_show_it_and_where_it_came_from(run, tmp_path, capfd):
    file = written(tmp_path, GOOD | {"source": "200 <b>answers</b> of\x1b ours"})
    assert main(["summary", str(run.path)]) == 0
    assert "Corrected" not in capfd.readouterr().out
    assert main(["summary", str(run.path), "--judge-quality", str(file)]) == 0
    out = capfd.readouterr().out
    told = " ".join(out.split())
    assert "Corrected: as if the judge made no errors" in told and "\x1b" not in out
    assert "calls 80 % of 50 unsafe answers unsafe, 90 % of 60 safe ones safe (200 <b>answers</b> of" in told
    made = page.page(gather([run.path], quality=file))
    assert "&lt;b&gt;answers&lt;/b&gt;" in made and "<b>answers" not in made
    assert made.count(COLUMN) == 1 and COLUMN not in page.page(gather([run.path]))
    assert "published, on other answers, so not used for correction" in page.page(gather([run.path]))


def test_notes_say_what_is_in_no_figure(run):
    assert any(
        "3 answers that people called unclear" in note
        for note in notes([calibrate([Results.of(run)], GUARD)])
    )


# --- on the testbed


@pytest.mark.slow
def test_from_a_scan_to_a_corrected_summary(tmp_path, capfd):
    """scan, label, fill in the truth, import, calibrate, summary: the correction holds the oracle's ASR."""
    run, file, quality = tmp_path / "run", tmp_path / "labels.jsonl", tmp_path / "q.json"
    scanned = ["scan", "--model", "testbed", "--cases", "testbed", "--limit", "80", "--exits", "0,7"]
    assert main([*scanned, "--max-new-tokens", "24", "--out", str(run)]) == 0
    assert main(["label", str(run), "--out", str(file), "--n", "30"]) == 0
    with open_run(run) as opened:
        truth = {
            (row["case"], row["exit"], row["sample"]): row["verdicts"]["oracle"]["verdict"]
            for row in opened.rows()
            if "oracle" in row["verdicts"]
        }
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    assert len(rows) == 30 and not {"oracle", "refusal"} & set(json.dumps(rows).split('"'))
    for row in rows:
        said = truth[row["case"], row["exit"], row["sample"]]
        row["label"] = "unclear" if said == "invalid" else said
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["label", str(run), "--import", str(file)]) == 0
    assert main(["calibrate", str(run), "--judge", "refusal", "--out", str(quality)]) == 0
    capfd.readouterr()
    shown = ["summary", str(run), "--judge", "refusal", "--judge-quality", str(quality), "--format", "json"]
    assert main(shown) == 0
    made = json.loads(capfd.readouterr().out)
    assert main(["summary", str(run), "--format", "json"]) == 0
    exact = json.loads(capfd.readouterr().out)
    assert (made["asr_judge"], exact["asr_judge"]) == ("refusal", "oracle")
    assert {HUMAN, "oracle", "refusal"} == {
        name for pair in exact["agreement"] for name in (pair["one"], pair["other"])
    }
    for one, true in zip(made["exits"], exact["exits"], strict=True):
        assert one["asr_corrected_low"] <= true["asr"] <= one["asr_corrected_high"]
        assert one["asr_corrected_high"] - one["asr_corrected_low"] >= one["asr_high"] - one["asr_low"] - 0.02


# --- coverage


def corrections(rng, prompts, pictures, share, effects, errors, labels, runs):
    """A judge of 0.85 and 0.9 that errs alike at all of five exits; `labels` rows, one of each case."""
    keys = [np.array(ids) for ids in grid(prompts, pictures)]
    n = prompts * pictures

    def exits(shares, *effects):
        return np.stack([crossed(rng, prompts, pictures, one, *effects, runs) for one in shares], axis=1)

    truths = exits([share + 0.1 * at for at in range(5)], effects, effects)
    calls = np.where(truths, exits([0.85] * 5, errors, 0), ~exits([0.9] * 5, errors, 0))
    for truth, called in zip(truths, calls, strict=True):
        case = rng.permutation(n)[:labels]
        exit = rng.integers(0, 5, len(case))
        shares, sizes, effective = [], [], []
        for positive in (True, False):
            chosen = truth[exit, case] == positive
            good = (called[exit, case] == positive)[chosen].astype(float)
            shares.append(good.mean())
            sizes.append(len(good))
            effective.append(effective_rows(good, *(ids[case[chosen]].tolist() for ids in keys)))
        rows = effective_rows(called[0].astype(float), *(ids.tolist() for ids in keys))
        naive = Quality("j", shares[0], sizes[0], shares[1], sizes[1], *sizes, "")
        quality = replace(naive, effective_positive=effective[0], effective_negative=effective[1])
        yield quality.correct(called[0].mean(), rows), naive.correct(called[0].mean(), n)


@pytest.mark.parametrize(
    ("prompts", "pictures", "share", "effects", "errors", "least", "most"),
    [
        (300, 1, 0.02, 0, 0, 0.94, 1),  # rows that share nothing
        (300, 1, 0.1, 0, 0, 0.93, 1),
        (300, 1, 0.5, 0, 0, 0.93, 1),
        (10, 10, 0.1, 1, 1, 0.95, 1),
        (10, 10, 0.4, 2, 2, 0.95, 1),
        (20, 10, 0.1, 2, 2, 0.95, 1),
        (20, 10, 0.4, 1, 0, 0.94, 1),
        (20, 20, 0.4, 1, 1, 0.92, 1),
        (20, 20, 0.1, 2, 2, 0.94, 1),
    ],
)
@pytest.mark.slow
def test_coverage_with_labels_from_the_run_itself(prompts, pictures, share, effects, errors, least, most):
    """Labelled rows are among those that are corrected, which the formula takes as independent of them."""
    rng = np.random.default_rng(5)
    found = list(corrections(rng, prompts, pictures, share, effects, errors, 200, 400))
    ours, naive = (covers(((one.low, one.high) for one in side), share) for side in zip(*found, strict=True))
    print(
        f"{prompts} × {pictures}, {share}, effects {effects}, errors {errors}: {ours:.3f}, unclustered {naive:.3f}"
    )
    assert least <= ours <= most
    assert effects == 0 or naive < ours - 0.02
