"""A run on disk: every sample is a row of its own."""

from layeralign.cases.case import Case
from layeralign.judges.judge import Judgement
from layeralign.runs import opening
from layeralign.runs.store import Row

CASE = Case("h", "how?", "harmful", category="x")


def test_every_sample_is_a_row_of_its_own(tmp_path):
    with opening.create(tmp_path, "m", {"x": 1}, {"layers": 3, "default": 3}) as run:
        run.add_cases([CASE])
        run.add_answers(Row("h", 3, f"answer {sample}", 2, "stop", sample) for sample in (0, 1))
        run.add_answers([Row("h", 3, "another", 2, "stop", 1)])
        run.add_verdicts("refusal", [(("h", 3, 0), Judgement("safe"))])
        assert run.unjudged("refusal") == [(("h", 3, 1), "answer 1")]
        assert [(row["sample"], row["answer"], list(row["verdicts"])) for row in run.rows()] == [
            (0, "answer 0", ["refusal"]), (1, "answer 1", []),
        ]  # fmt: skip
