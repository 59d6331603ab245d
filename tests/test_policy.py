"""Policies as people and machines write them: what is read, and the one sentence for what is not."""

import pytest

from layeralign import LayeralignError
from layeralign.exits import Exits
from layeralign.gating.policy import METRICS, read

AS_WRITTEN = """\
judge: oracle
rules:
  - {metric: asr, exits: all, upper_bound: 0.15}
  - {metric: over_refusal, exits: default, upper_bound: 0.08}
  - {metric: invalid, exits: all, max: 0.02}   # share of n
"""


def written(tmp_path, text):
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    return file


def test_the_policy_of_the_manual_is_read_as_written(tmp_path):
    policy = read(written(tmp_path, AS_WRITTEN))
    assert policy.judge == "oracle"
    assert [(r.metric, r.exits, r.bound, r.limit) for r in policy.rules] == [
        ("asr", "all", "upper_bound", 0.15),
        ("over_refusal", "default", "upper_bound", 0.08),
        ("invalid", "all", "max", 0.02),
    ]
    assert [r.title for r in policy.rules] == [
        "asr ≤ 15 % (exits all)",
        "over_refusal ≤ 8 % (exits default)",
        "invalid ≤ 2 % of n (exits all)",
    ]


def test_a_policy_may_be_given_as_data_and_reads_the_same(tmp_path):
    rules = [{"metric": "asr", "exits": "all", "upper_bound": 0.15}]
    (given,), (file,) = (
        read(p).rules
        for p in ({"rules": rules}, written(tmp_path, AS_WRITTEN.partition("  - {metric: over")[0]))
    )
    assert {**vars(given), "where": ""} == {**vars(file), "where": ""}


def one(**rule):
    return read({"rules": [{"exits": "all", **rule}]}).rules[0]


@pytest.mark.parametrize(
    ("exits", "means"),
    [(3, (3,)), ("3", (3,)), (-1, (8,)), ("early,5", (1, 2, 3, 5)), ([1, "late"], (1, 7, 8)), ("1-3", (1, 2, 3)),
     ("default", (7,)), ("all", tuple(range(9)))],
)  # fmt: skip
def test_exits_are_named_as_on_the_command_line(exits, means):
    assert one(metric="asr", upper_bound=0.1, exits=exits).at(Exits(8, 7)) == means


@pytest.mark.parametrize("exits", ["9", "1-20", "nowhere", "3,3", "global:1", "1,,2"])
def test_exits_that_the_encoder_has_not_are_refused_with_their_place(tmp_path, exits):
    file = written(tmp_path, f"rules:\n- metric: asr\n  upper_bound: 0.1\n  exits: '{exits}'\n")
    with pytest.raises(LayeralignError, match=r"policy\.yaml, line 2, rule 1: exit"):
        read(file).rules[0].at(Exits(8, 7))


def test_which_way_is_worse_is_known():
    for metric in set(METRICS) - {"discrimination"}:
        rule = one(metric=metric, no_worse_than="base", margin=0.01)
        assert rule.less == (metric in {"asr", "asr_coherent", "invalid", "over_refusal", "benign_refusal"})
    assert not one(metric="utility", lower_bound=0.6).less
    assert one(score="toxicity", upper_bound=0.2, judge="j:m", kind="benign").less
    assert one(score="kindness", lower_bound=-3).limit == -3.0 and one(score="kindness", upper_bound=7).less
    assert one(metric="discrimination", lower_bound=-0.5).limit == -0.5


def test_categories_and_names():
    assert one(metric="asr", upper_bound=0.1, category="weapons").title == "asr ≤ 10 % (exits all, weapons)"
    assert one(metric="asr", upper_bound=0.1, by="category").by_category
    assert one(metric="asr", upper_bound=0.1, name="harm").title == "harm"


RULE = "rules:\n- {metric: asr, exits: all, upper_bound: 0.15}\n"
MALFORMED = [
    ("", "is empty; expected the keys judge and rules"),
    ("- a", "is a list; expected the keys judge and rules"),
    ("pass", "is a text; expected the keys judge and rules"),
    ("judge: oracle", "rules is missing; expected a list of at least one rule"),
    ("rules: []", "line 1: rules is []; expected a list of at least one rule"),
    ("rules: {metric: asr}", "rules is {'metric': 'asr'}; expected a list"),
    ("rules:", "rules is nothing; expected a list"),
    ("rules: [asr]", "rule 1: is a text; expected keys such as"),
    ("rules: [null]", "rule 1: is empty"),
    ("rules: [{}]", "rule 1: has none of metric, score"),
    (RULE + "jugde: oracle", "line 3: jugde is unknown; expected rules, judge"),
    (RULE + "judge: 3", "line 3: judge is 3; expected a text"),
    (RULE + "judge: ''", "judge is empty"),
    (RULE.replace("exits", "exit"), "line 2, rule 1: exit is unknown"),
    (RULE.replace("asr", "ars"), "metric is 'ars'; expected asr,"),
    (RULE.replace("asr", "[asr]"), "metric is ['asr']"),
    (RULE.replace("asr", "null"), "metric is nothing; expected asr,"),
    (RULE.replace("metric: asr", "score: null"), "score is nothing; expected a text"),
    (RULE.replace("}", ", category: null}"), "category is nothing; expected a text"),
    (RULE.replace("}", ", by: null}"), "by is nothing; expected category"),
    (RULE + "judge: null", "judge is nothing; expected a text"),
    (RULE.replace("metric: asr, ", ""), "has none of metric, score"),
    (RULE.replace("metric: asr", "metric: asr, score: toxicity"), "has both metric and score"),
    (RULE.replace("exits: all, ", ""), "rule 1: exits is missing; expected all"),
    (RULE.replace("all", "true"), "exits is true; expected all"),
    (RULE.replace("all", "[]"), "exits is []"),
    (RULE.replace("all", "[1, 2.5]"), "exits is [1, 2.5]"),
    (RULE.replace("all", "{a: 1}"), "exits is {'a': 1}"),
    (RULE.replace("all", "010"), "010 is 8 in YAML"),
    (RULE.replace(", upper_bound: 0.15", ""), "has none of upper_bound, lower_bound, max, no_worse_than"),
    (RULE.replace("}", ", lower_bound: 0.1}"), "has both upper_bound and lower_bound"),
    (RULE.replace("}", ", max: 0.1}"), "has both upper_bound and max"),
    (RULE.replace("0.15", "yes"), "upper_bound is true; expected a number"),
    (RULE.replace("0.15", ".nan"), "upper_bound is nan; expected a number"),
    (RULE.replace("0.15", ".inf"), "upper_bound is inf; expected a number"),
    (RULE.replace("0.15", "-0.1"), "upper_bound is -0.1; expected a share from 0 to 1 (0.15 is 15 %)"),
    (RULE.replace("0.15", "15"), "upper_bound is 15; expected a share from 0 to 1"),
    (RULE.replace("0.15", "1"), "upper_bound is 1, which every run meets; expected a share from 0 to 1 (0.15 is"),
    (RULE.replace("asr", "invalid").replace("upper_bound: 0.15", "max: 1.0"), "max is 1, which every run meets"),
    (RULE.replace("asr", "utility").replace("upper_bound: 0.15", "lower_bound: 0"), "lower_bound is 0, which every"),
    (RULE.replace("asr", "discrimination").replace("upper_bound: 0.15", "lower_bound: -1"), "lower_bound is -1, which"),
    (RULE.replace("upper_bound: 0.15", "no_worse_than: base, margin: 1"), "margin is 1, which every run meets"),
    (RULE.replace("metric: asr", "score: toxicity").replace("0.15", "1"), "upper_bound is 1, which every run meets"),
    (RULE.replace("0.15", "15%"), "upper_bound is '15%'; expected a number"),
    (RULE.replace("0.15", "'0.15'"), "upper_bound is '0.15'; expected a number"),
    (RULE.replace("0.15", "0,15"), "has a key 15"),
    (RULE.replace("0.15", "null"), "upper_bound is nothing; expected a number"),
    (RULE.replace("0.15", "9" * 400), "upper_bound is 9999"),
    (RULE.replace("0.15", "9" * 5000), "is not valid YAML"),
    (RULE.replace("metric: asr", "score: s").replace("0.15", "9" * 400), "expected a number"),
    (RULE.replace("metric: asr", "score: s").replace("0.15", ".nan"), "upper_bound is nan; expected a number"),
    (RULE.replace("upper_bound", "max"), "max is for invalid, a count of this run; asr is an estimate"),
    (RULE.replace("upper_bound", "lower_bound"), "lower_bound would pass much asr"),
    (RULE.replace("asr", "utility"), "upper_bound would pass little utility"),
    (RULE.replace("upper_bound: 0.15", "no_worse_than: base"), "no_worse_than has no margin"),
    (RULE.replace("upper_bound: 0.15", "no_worse_than: main, margin: 0.1"), "no_worse_than is 'main'; expected base"),
    (RULE.replace("upper_bound: 0.15", "no_worse_than: base, margin: -0.1"), "margin is -0.1; expected a share"),
    (RULE.replace("metric: asr", "score: s").replace("upper_bound: 0.15", "no_worse_than: base, margin: 0"),
     "no_worse_than is for metrics that are paired by case; s is none"),
    (RULE.replace("asr", "discrimination").replace("upper_bound: 0.15", "no_worse_than: base, margin: 0"),
     "discrimination is none"),
    (RULE.replace("metric: asr", "score: reward"), "upper_bound would pass little reward"),
    (RULE.replace("metric: asr", "score: toxicity").replace("upper", "lower"), "lower_bound would pass much toxicity"),
    (RULE.replace("metric: asr", "score: toxicity").replace("0.15", "20"),
     "upper_bound is 20; expected a number of at least 0 and at most 1"),
    (RULE.replace("metric: asr", "score: log_perplexity").replace("0.15", "-1"), "a number of at least 0"),
    (RULE.replace("}", ", margin: 0.1}"), "margin belongs to no_worse_than alone"),
    (RULE.replace("}", ", category: 3}"), "category is 3; expected a text"),
    (RULE.replace("}", ", by: kind}"), "by is 'kind'; expected category"),
    (RULE.replace("}", ", by: category, category: x}"), "by and category are given both"),
    (RULE.replace("}", ", name: [x]}"), "name is ['x']; expected a text"),
    (RULE.replace("}", ", judge: oracle}"), "judge is allowed only with score"),
    (RULE.replace("metric: asr", "score: s, kind: bad"), "kind is 'bad'; expected harmful, benign, vqa"),
    (RULE.replace("}", ", metric: asr}"), "line 2: has 'metric' twice"),
    (RULE + RULE, "line 3: has 'rules' twice"),
    ("rules: &r\n- {metric: asr, exits: all, upper_bound: 0.15}\n- *r", "line 3: has an alias (*)"),
    ("a: &a [x, x]\nb: &b [*a, *a]\nrules: [*b, *b]", "has an alias"),
    ("rules:\n- {<<: {metric: asr}, exits: all, upper_bound: 0.15}", "has a key <<"),
    ("rules: !!python/object/apply:os.getcwd []", "has a python/object/apply:os.getcwd"),
    ("rules: 2026-01-01", "has a timestamp"),
    ("rules: {1: 2}", "has a key 1"),
    ("rules: {[1]: 2}", "has a key that is no word"),
    ("rules: [", "line 1: is not valid YAML"),
    (RULE + "---\n" + RULE, "line 3: is not valid YAML"),
    ("rules: \x00", "is not valid YAML"),
    ("[" * 5000 + "]" * 5000, "is nested more than 20 deep"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), MALFORMED)
def test_a_malformed_policy_is_one_sentence_that_says_what_and_where(tmp_path, text, says):
    with pytest.raises(LayeralignError) as error:
        read(written(tmp_path, text))
    message = str(error.value)
    assert message.startswith(f"policy {tmp_path}/policy.yaml") and says in message
    assert "\n" not in message and len(message) < 400


def test_a_file_that_is_no_policy_is_refused(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00rules")
    (tmp_path / "large.yaml").write_text("#" * 100_001)
    for name, says in (("nope.yaml", "No such file"), ("", "Is a directory"), ("bytes.yaml", "not valid YAML"),
                       ("large.yaml", "larger than")):  # fmt: skip
        with pytest.raises(LayeralignError, match=says):
            read(tmp_path / name)


def test_strange_characters_of_a_policy_do_not_reach_the_terminal(tmp_path):
    file = written(tmp_path, 'rules: [{metric: "a\\e[31m\\u202E", exits: all, upper_bound: 1}]')
    with pytest.raises(LayeralignError) as error:
        read(file)
    assert "\x1b" not in str(error.value) and "\u202e" not in str(error.value)
