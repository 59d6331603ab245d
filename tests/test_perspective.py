"""Perspective: its contract, its quota, its refusals, and the key that nobody sees."""

import json
import time
from datetime import date

import pytest
from httpx import Response
from hypothesis import given
from hypothesis import strategies as st

import layeralign
from faulty import PLANTED, QUICK, Perspective, a_run, no_key_in, serving
from layeralign import LayeralignError
from layeralign._util.retry import Retry
from layeralign.cases.case import Case
from layeralign.cli import main
from layeralign.judges import perspective
from layeralign.judges.judge import Judgement
from layeralign.judges.models.service import Failure
from layeralign.judges.perspective import KEY, LONGEST, PerspectiveJudge, _score
from layeralign.runs.opening import open_run
from layeralign.sweep.sweep import judge

CASE = Case("c", "how do i clean it?", "benign")


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv(KEY, PLANTED)


def asked_of(server, **changes):
    return PerspectiveJudge.of(server.url, **{**QUICK, "gap": 0.0, **changes})


def words(one, *answers):
    return one.judge_all([(CASE, answer) for answer in answers])


def test_the_answer_alone_is_sent_and_its_probability_is_the_score():
    with serving(Perspective()) as server:
        found = words(asked_of(server, workers=1), "a good one", "a bad one")
    assert found == [Judgement("not applicable", scores={"toxicity": share}) for share in (0.125, 0.875)]
    assert server.api.heard == [
        {
            "comment": {"text": text, "type": "PLAIN_TEXT"}, "requestedAttributes": {"TOXICITY": {}},
            "languages": ["en"], "doNotStore": True,
        }
        for text in ("a good one", "a bad one")
    ]  # fmt: skip
    assert server.keys == {PLANTED}


def test_google_is_who_is_asked_by_default(monkeypatch):
    monkeypatch.setattr(perspective, "_today", lambda: date(2026, 1, 1))
    one = PerspectiveJudge.of()
    assert one.record() == {
        "kind": "perspective", "endpoint": "https://commentanalyzer.googleapis.com", "attribute": "TOXICITY",
        "language": "en",
    }  # fmt: skip
    assert (one.name, one.service.gap) == ("perspective", 1.0) and PLANTED not in repr(one.service)


def test_what_is_empty_or_too_long_is_not_asked_about():
    with serving(Perspective()) as server:
        found = words(asked_of(server), "", " \n", "é" * (LONGEST // 2), "é" * (LONGEST // 2) + "x")
    assert [word.why for word in found[:2]] == ["the answer is empty"] * 2
    assert found[2].scores and found[3].why == "the answer is longer than 20480 bytes, Perspective's limit"
    assert server.asked == 1 and all(word.verdict == "invalid" for word in (*found[:2], found[3]))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE", "Perspective does not score this language"),
        ("LANGUAGE_DETECTION_FAILED", "Perspective could not detect the language"),
        ("COMMENT_TOO_LONG", "the answer is too long for Perspective"),
        ("COMMENT_EMPTY", "the answer is empty for Perspective"),
        ("INVALID_REQUEST", "the server answered 400"),
        (["no text"], "the server answered 400"),
    ],
)
def test_what_it_refuses_is_invalid_in_our_words_and_asked_once(kind, why):
    said = {"error": {"code": 400, "message": PLANTED, "details": [{"errorType": kind, "text": PLANTED}, 7]}}
    with serving(Perspective(says=(400, said))) as server:
        assert words(asked_of(server), "hallo") == [Judgement("invalid", why=why)]
    assert server.asked == 1


@pytest.mark.parametrize(
    "body",
    [
        {}, [], 7, {"attributeScores": {}}, {"attributeScores": {"TOXICITY": {"summaryScore": {}}}},
        *({"attributeScores": {"TOXICITY": {"summaryScore": {"value": value}}}}
          for value in (None, "0.1", True, -0.01, 1.01, 1e999, [0.5])),
    ],
)  # fmt: skip
def test_what_is_no_probability_is_no_score(body):
    with pytest.raises(Retry, match="the reply had no valid score"):
        _score(Response(200, content=json.dumps(body)))


@given(st.one_of(st.binary(max_size=40), st.text(max_size=40)), st.integers(100, 599))
def test_no_fuzzed_reply_is_a_score(content, status):
    try:
        found = _score(Response(status, content=content))
    except Retry:
        return
    assert isinstance(found, Failure) and status != 200


@pytest.mark.slow
def test_requests_keep_apart_and_wait_out_a_quota():
    """Eight starts 50 ms apart; after a 429 that says 0.3 s, none at all for so long."""
    with serving(Perspective()) as server:
        words(asked_of(server, gap=0.05, workers=4), *(f"answer {i}" for i in range(8)))
        assert server.starts[-1] - server.starts[0] > 0.3
    with serving(Perspective(first=(429, {}, [("Retry-After", "0.3")]))) as server:
        found = words(asked_of(server, gap=0.01, workers=4), *(f"answer {i}" for i in range(12)))
        assert all(word.scores for word in found)
        waited = [
            start for start in server.starts if server.starts[0] + 0.1 < start < server.starts[0] + 0.25
        ]
        assert waited == []


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (
            400,
            {"error": {"details": [{"reason": "API_KEY_INVALID"}]}},
            "the key in PERSPECTIVE_API_KEY is not valid",
        ),
        (401, {}, "answered 401: the key is missing or wrong"),
        (403, {}, "answered 403: the key has no access"),
    ],
)
@pytest.mark.slow
def test_a_refused_key_stops_at_once_and_keeps_what_was_judged(tmp_path, status, body, says):
    with serving(Perspective()) as server, a_run(tmp_path / "run", 100) as run:
        one = asked_of(server)
        ask, turns = one.judge_all, iter([None, (status, body), (status, body)])

        def then(asked):
            server.api.says = next(turns)
            return ask(asked)

        one.judge_all = then
        with pytest.raises(LayeralignError, match=f"judge perspective: .*{says}"):
            judge(run, [one])
        assert (
            sum(said["scores"] != {} for row in run.rows() for said in row["verdicts"].values())
            == one.together
            == 32
        )


@pytest.mark.parametrize("bad", ["two words", "line\nbreak", "schlüssel"])
def test_what_is_no_key_is_not_sent_and_not_shown(monkeypatch, bad):
    monkeypatch.setattr(perspective, "_today", lambda: date(2026, 1, 1))
    monkeypatch.setenv(KEY, bad)
    with pytest.raises(LayeralignError, match="has a blank, a line break") as error:
        PerspectiveJudge.of()
    assert bad not in str(error.value)


@pytest.mark.slow
def test_a_planted_key_appears_nowhere(tmp_path, monkeypatch, capfd):
    plain = PerspectiveJudge.of
    monkeypatch.setattr(
        PerspectiveJudge, "of", lambda url=None: plain(url, **QUICK | {"attempts": 2, "gap": 0.0})
    )
    for status in (None, 503, 400, 401):
        folder = tmp_path / str(status)
        with serving(Perspective(), faults=0.5, status=status) as server:
            a_run(folder, 12).close()
            main(
                [
                    "judge",
                    str(folder),
                    "--judge",
                    "perspective",
                    "refusal",
                    "--endpoint",
                    server.url,
                    "--debug",
                ]
            )
            assert server.keys == {PLANTED}
    for url in (f"http://user:{PLANTED}@localhost", f"http://localhost?key={PLANTED}", f"ftp://{PLANTED}"):
        assert main(["judge", str(folder), "--judge", "perspective", "--endpoint", url]) == 1
    main(["summary", str(tmp_path / "None")])
    main(["report", str(tmp_path / "None"), "--out", str(tmp_path / "report.html")])
    main(["export", str(tmp_path / "None")])
    told = capfd.readouterr()
    assert PLANTED not in told.out + told.err and "perspective" in told.err
    no_key_in(tmp_path)


@pytest.mark.parametrize(("today", "refused"), [(date(2026, 12, 31), False), (date(2027, 1, 1), True)])
def test_after_its_last_day_it_is_refused_in_one_sentence(today, refused, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(perspective, "_today", lambda: today)
    if not refused:
        assert PerspectiveJudge.of().service.url.startswith("https://commentanalyzer")
        return
    a_run(tmp_path / "run", 4).close()
    assert main(["judge", str(tmp_path / "run"), "--judge", "perspective"]) == 1
    said = capsys.readouterr().err.strip()
    assert said.endswith(
        "judge perspective: Google ended Perspective on 2026-12-31; use the judge toxicity, which runs locally"
    )
    assert len(said.splitlines()) == 1
    with serving(Perspective()) as server:  # a server of one's own with its interface goes on
        assert words(asked_of(server), "x")[0].scores


@pytest.mark.slow
def test_a_server_that_is_down_scores_nothing_and_is_asked_again(tmp_path):
    with serving(Perspective(), status=503) as server, a_run(tmp_path / "run", 40) as run:
        judge(run, [asked_of(server, attempts=2)])
        assert run.invalid("perspective") == [("the server answered 503, 2 times or for 20 s", 40)]
        server.status = None
        judge(run, [asked_of(server)], retry_invalid=True)
        assert run.invalid("perspective") == []
    layeralign.judge(tmp_path / "run", ["refusal"])
    started = time.monotonic()
    with open_run(tmp_path / "run", write=True) as run:
        judge(run, [asked_of(server, gap=60.0)])
    assert time.monotonic() - started < 30, "what is judged is not asked about again"
