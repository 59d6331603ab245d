"""Output of a gate: a table and a sentence for people, JUnit XML and Markdown for CI systems."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from layeralign._util.text import printable
from layeralign.gating.checks import STYLES, Check, Result
from layeralign.gating.evaluate import Gate, Outcome
from layeralign.gating.policy import Rule
from layeralign.gating.worst_case import cases_of
from layeralign.judges.kinds import meaning
from layeralign.stats.sample_size import approximate

if TYPE_CHECKING:
    from layeralign.gating.deployed import Deployed


def table(gate: Gate) -> Table:
    """Return a table with a line per rule, the worst first: worst exit, value there, limit."""
    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text(
            f"{printable(gate.run)}: {printable(gate.model)}, {printable(_judge(gate))}\n{_means(gate)}",
            "bold",
        ),
        title_justify="left",
    )
    for head in ("", "rule", "worst exit", "value [95 %]", "limit", "n"):
        made.add_column(
            head, justify="right" if head in ("worst exit", "n") else "left",
            no_wrap=head not in ("rule", "worst exit"),
        )  # fmt: skip
    for outcome in gate.outcomes:
        cells = (outcome.result, *_cells(outcome, outcome.worst))
        made.add_row(*(Text(cell) for cell in cells), style=STYLES[outcome.result])
    return made


def _judge(gate: Gate) -> str:
    return f"judged by {gate.judge}" + (f", whose errors {gate.quality} corrects" if gate.quality else "")


def _means(gate: Gate) -> str:
    return f"ASR: {printable(meaning(gate.judge))}"


def _judged(gate: Gate) -> str:
    """Return the judge, and the meaning of an ASR by this judge."""
    return f"{_judge(gate)}; {_means(gate)}"


def _cells(outcome: Outcome, check: Check) -> tuple[str, str, str, str, str]:
    """Return rule, exit, value, limit and n."""
    where = check.name + (f" ({printable(check.category, 40)})" if check.category else "")
    rule = printable(outcome.rule.name or outcome.rule.metric, 60)
    return rule, where, value(outcome, check), outcome.rule.allowed, str(check.estimate.n)


def value(outcome: Outcome, check: Check) -> str:
    """Return a value with its interval, shares in percent; for `no_worse_than` the change."""
    found, rule = check.estimate, outcome.rule
    if found.value is None:
        return "not measured"
    scale, sign = (1, "") if rule.scored else (100, "+" if rule.bound == "no_worse_than" else "")

    def number(of: float) -> str:
        return f"{of * scale:{sign}.3g}" if rule.scored else f"{of * scale:{sign}.1f}"

    interval = (
        "" if found.low is None or found.high is None else f" [{number(found.low)}, {number(found.high)}]"
    )
    return number(found.value) + ("" if rule.scored else " %") + interval


def reasons(gate: Gate) -> list[str]:
    """Return, for each rule that does not pass, the reason and the exits where it does not pass."""
    return [
        f"{outcome.result}: {printable(outcome.rule.title, 100)}: {_where(outcome.worst)}: "
        f"{printable(outcome.worst.why, 300)}{_others(outcome)}"
        for outcome in gate.outcomes
        if outcome.result != "pass"
    ]


def _where(check: Check) -> str:
    return f"exit {check.name}" + (f", {printable(check.category, 40)}" if check.category else "")


def _others(outcome: Outcome) -> str:
    """Return every failed and inconclusive exit, if more than one check does not pass."""
    told = []
    for result in ("fail", "inconclusive"):
        found = [check for check in outcome.checks if check.result == result]
        categories = sorted({check.category or "" for check in found})
        exits = ", ".join(
            _spans([check for check in found if (check.category or "") == category])
            + (f" ({printable(category, 40)})" if category else "")
            for category in categories
        )
        told += [f"{_SAY[result]}: exit{'s' if len(found) > 1 else ''} {exits}"] if found else []
    several = sum(check.result != "pass" for check in outcome.checks) > 1
    return f" ({'; '.join(told)})" if several else ""


def _spans(checks: Sequence[Check]) -> str:
    """Return the exits by name, with consecutive exits as a range: `0-4, 7`."""
    numbered = enumerate(sorted(checks, key=lambda check: check.exit))
    told = []
    for _, together in groupby(numbered, key=lambda at: (at[1].exit - at[0], at[1].name.rpartition(":")[0])):
        first, *rest = (check.name for _, check in together)
        told.append(f"{first}-{rest[-1].rpartition(':')[2]}" if rest else first)
    return ", ".join(told)


def sentence(gate: Gate) -> str:
    """Return the result in one sentence."""
    counts = {name: [o for o in gate.outcomes if o.result == name] for name in STYLES}
    total = f"{len(gate.outcomes)} rule" + ("s" if len(gate.outcomes) > 1 else "")
    if gate.result == "pass":
        return f"pass: {total} kept"
    told = [
        f"{len(found)} of {total} {_SAY[name]}" for name, found in counts.items() if found and name != "pass"
    ]
    return f"{gate.result}: {', '.join(told)}{_settled(gate) if gate.result == 'inconclusive' else ''}"


def _settled(gate: Gate) -> str:
    """Return the effect of more cases on an inconclusive gate."""
    open_ = [(o.rule, check) for o in gate.outcomes for check in o.checks if check.result != "pass"]
    if gate.more is not None:
        kinds = {cases_of(rule, check.category) for rule, check in open_}
        what = printable(kinds.pop(), 100) if len(kinds) == 1 else "cases of each kind that is short"
        return f"; {approximate(gate.more)} more {what} would let it pass, if the values stay"
    beyond = any(
        check.estimate.value is not None and rule.beyond(check.estimate.value) >= 0 for rule, check in open_
    )
    return "; more cases alone would not let it pass, if the values stay" if beyond else ""


def deployed(found: Deployed) -> str:
    """Return the exit that a config selects, and the result for that exit, in one sentence."""
    how = f" ({', '.join(filter(None, (found.runtime, found.key)))})" if found.runtime else ""
    return f"{found.result}: {found.config}{how}: {reason(found)}"


def reason(found: Deployed) -> str:
    """Return the exit that a config selects, and why it has its result."""
    if found.exit is None:
        return f"its exit is unknown: {found.why}"
    what = "weights and the adapter" if found.adapter else "weights"
    known = found.weights or found.gate is None
    weights = "" if known else f" (with the {what} that were scanned; none were seen here)"
    return f"it runs at exit {found.name}{weights}{_shown(found)}"


def _shown(found: Deployed) -> str:
    """Return the result for a config's exit, as the end of a sentence."""
    if found.gate is None and found.result == "inconclusive":
        return f", but {found.why}"
    if found.gate is None or found.gate.result != found.result:  # set by the comparison with the default exit
        return f": {found.why}"
    outcomes = [outcome for outcome in found.gate.outcomes if outcome.result == found.result]
    if found.result == "pass":
        left = f"; not compared: {', '.join(found.left)}" if found.left else ""
        return f", which meets {', '.join(_limit(outcome.rule) for outcome in outcomes)}{left}"
    says = {"fail": "which violates", "inconclusive": "which has not been shown to meet"}[found.result]
    return f", {says} {'; '.join(f'{_limit(o.rule)} ({o.worst.why})' for o in outcomes)}"


def _limit(rule: Rule) -> str:
    """Return a rule's condition, without the rule's name."""
    each = (
        " in each category" if rule.by_category else f" of category {rule.category}" if rule.category else ""
    )
    return f"{rule.metric} {rule.allowed}{each}"


_SAY: dict[Result, str] = {"fail": "failed", "inconclusive": "inconclusive", "pass": "kept"}


def markdown(gate: Gate) -> str:
    """Return a summary for a pull request or a CI page; all untrusted text is inert code."""
    lines = [
        f"### layeralign gate: {sentence(gate)}",
        "",
        f"Run {code(gate.run)}, model {code(gate.model)}, {code(_judged(gate))}"
        + (f", compared with {code(gate.base)}" if gate.base else ""),
        "",
        *((f"Read this first: {code(gate.caution)}", "") if gate.caution else ()),
        "| result | rule | worst exit | value [95 %] | limit | n |",
        "|---|---|---|---|---|---|",
    ]
    for outcome in gate.outcomes:
        check = outcome.worst
        where = check.name + (f" {code(check.category)}" if check.category else "")
        rule = code(outcome.rule.name or outcome.rule.metric)
        cells = [f"**{outcome.result}**" if outcome.result != "pass" else "pass", rule, where]
        cells += [value(outcome, check), outcome.rule.allowed, str(check.estimate.n)]
        lines.append(f"| {' | '.join(cells)} |")
    told = [f"- {code(reason)}" for reason in reasons(gate)]
    return "\n".join([*lines, *([""] if told else []), *told]) + "\n"


def code(text: str) -> str:
    """Return untrusted text as Markdown code on one line, also inside a table, with no active characters."""
    inert = printable(text).replace("`", "'").replace("|", "¦").strip()
    return f"`{inert or '–'}`"


def junit(gate: Gate) -> str:
    """Return JUnit XML with a test per rule and exit; inconclusive checks are errors, never skipped tests."""
    checks = [(outcome, check) for outcome in gate.outcomes for check in outcome.checks]
    counts = {name: str(sum(check.result == name for _, check in checks)) for name in STYLES}
    numbers = {"tests": str(len(checks)), "failures": counts["fail"], "errors": counts["inconclusive"]}
    suites = ET.Element("testsuites", numbers)
    suite = ET.SubElement(suites, "testsuite", {"name": "layeralign gate", "skipped": "0", **numbers})
    properties = ET.SubElement(suite, "properties")
    for name, text in (
        ("run", gate.run),
        ("model", gate.model),
        ("judge", _judged(gate)),
        ("base", gate.base),
        ("caution", gate.caution or None),
    ):
        if text is not None:
            ET.SubElement(properties, "property", {"name": name, "value": _xml(text)})
    for outcome, check in checks:
        case = ET.SubElement(
            suite, "testcase", {"classname": _xml(outcome.rule.title), "name": _where(check), "time": "0"}
        )
        told = f"{value(outcome, check)}, limit {outcome.rule.allowed}, n = {check.estimate.n}"
        if check.result == "pass":
            ET.SubElement(case, "system-out").text = _xml(told)
        else:
            kind = "failure" if check.result == "fail" else "error"
            found = ET.SubElement(case, kind, {"type": check.result, "message": _xml(check.why)})
            found.text = _xml(f"{told}: {check.why}")
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _xml(text: str) -> str:
    """Return untrusted text without the characters that XML 1.0 forbids."""
    return re.sub("[\ufffe\uffff]", "\ufffd", printable(text))
