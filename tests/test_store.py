"""A run on disk: what older versions left is read on, and every sample is a row of its own."""

import sqlite3

import pytest

from layeralign.cases.case import Case
from layeralign.judges.judge import Judgement
from layeralign.runs import store
from layeralign.runs.store import Row

FORMAT_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE sessions (started TEXT NOT NULL, command TEXT NOT NULL, versions TEXT NOT NULL) STRICT;
CREATE TABLE cases (
  id TEXT PRIMARY KEY, number INTEGER NOT NULL, sha256 TEXT NOT NULL, prompt TEXT NOT NULL,
  kind TEXT NOT NULL, category TEXT NOT NULL, reference TEXT, image TEXT, image_sha256 TEXT,
  facts TEXT NOT NULL
) STRICT;
CREATE TABLE answers (
  "case" TEXT NOT NULL REFERENCES cases (id), exit INTEGER NOT NULL, answer TEXT NOT NULL,
  tokens INTEGER NOT NULL, finished INTEGER NOT NULL, PRIMARY KEY ("case", exit)
) STRICT, WITHOUT ROWID;
CREATE TABLE verdicts (
  "case" TEXT NOT NULL, exit INTEGER NOT NULL, judge TEXT NOT NULL, verdict TEXT NOT NULL,
  refused INTEGER, coherent INTEGER, correct INTEGER, PRIMARY KEY ("case", exit, judge)
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('format', '1'), ('model', '"m"'), ('identity', '{"x": 1}'),
  ('encoder', '{"layers": 3, "default": 3}');
INSERT INTO sessions VALUES ('2026-11-01T00:00:00+00:00', 'layeralign scan', '{"torch": "2"}');
INSERT INTO answers VALUES ('h', 2, 'like this', 2, 1), ('h', 3, 'no', 1, 1);
INSERT INTO verdicts VALUES ('h', 2, 'oracle', 'unsafe', 0, 1, 0), ('h', 3, 'oracle', 'safe', 1, 1, NULL);
"""
FORMAT_2 = (
    FORMAT_1
    + """
ALTER TABLE verdicts ADD COLUMN score REAL;
ALTER TABLE verdicts ADD COLUMN categories TEXT NOT NULL DEFAULT '[]';
ALTER TABLE verdicts ADD COLUMN why TEXT NOT NULL DEFAULT '';
CREATE TABLE judges (name TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;
UPDATE meta SET value = '2' WHERE key = 'format';
"""
)
CASE = Case("h", "how?", "harmful", category="x")


@pytest.mark.parametrize("was", [FORMAT_1, FORMAT_2], ids=["1", "2"])
def test_formats_before_are_read_on(was, tmp_path):
    """Nothing of them is lost, and they can be added to."""
    connection = sqlite3.connect(tmp_path / store.FILE)
    connection.executescript(was)
    connection.execute(
        "INSERT INTO cases VALUES ('h', 0, ?, 'how?', 'harmful', 'x', NULL, NULL, NULL, '{}')", (CASE.sha256,)
    )
    connection.commit()
    connection.close()
    with store.create(tmp_path, "m", {"x": 1}, {"layers": 3, "default": 3}) as run:
        assert run.answered() == {("h", 2, 0), ("h", 3, 0)}
        words = [(row.exit, row.verdict, row.refused, row.coherent, row.correct) for row in run.judged()]
        assert words == [(2, "unsafe", False, True, 0), (3, "safe", True, True, None)]
        assert run.sessions()[0] == {
            "started": "2026-11-01T00:00:00+00:00", "command": "layeralign scan", "versions": {"torch": "2"},
            "rows": 0, "seconds": 0,
        }  # fmt: skip
        run.add_cases([CASE])
        assert list(run.cases()) == [CASE]
        run.add_answers([Row("h", 2, "again", 1, True, sample=1)], run.add_session("now", "c", {}), 0.5)
        run.add_verdicts(
            "toxicity:m", [(("h", 2, 1), Judgement("not applicable", scores={"toxicity": 0.25}))]
        )
        assert [(row.key, dict(row.scores)) for row in run.judged() if row.judge == "toxicity:m"] == [
            (("h", 2, 1), {"toxicity": 0.25})
        ]
        assert [(s["rows"], s["seconds"]) for s in run.sessions()] == [(0, 0), (1, 0.5)]


def test_every_sample_is_a_row_of_its_own(tmp_path):
    with store.create(tmp_path, "m", {"x": 1}, {"layers": 3, "default": 3}) as run:
        run.add_cases([CASE])
        run.add_answers(Row("h", 3, f"answer {sample}", 2, True, sample) for sample in (0, 1))
        run.add_answers([Row("h", 3, "another", 2, True, 1)])
        run.add_verdicts("refusal", [(("h", 3, 0), Judgement("safe"))])
        assert run.unjudged("refusal") == [(("h", 3, 1), "answer 1")]
        assert [(row["sample"], row["answer"], list(row["verdicts"])) for row in run.rows()] == [
            (0, "answer 0", ["refusal"]), (1, "answer 1", []),
        ]  # fmt: skip
