"""What came of a gate: a table and a sentence for people, JUnit XML and Markdown for machines that build."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from layeralign.analysis.decide import Check, Result
from layeralign.analysis.deployed import Deployed
from layeralign.analysis.gate import Gate, Outcome
from layeralign.text import printable

_STYLES: dict[Result, str] = {"fail": "bold red", "inconclusive": "yellow", "pass": "green"}


def table(gate: Gate) -> Table:
    """A line for each rule, the worst first: its worst exit, the value there, the limit."""
    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"{printable(gate.run)}: {printable(gate.model)}, {printable(_judged(gate))}", "bold"),
        title_justify="left",
    )
    for head in ("", "rule", "worst exit", "value [95 %]", "limit", "n"):
        made.add_column(head, justify="right" if head in ("worst exit", "n") else "left")
    for outcome in gate.outcomes:
        cells = (outcome.result, *_cells(outcome, outcome.worst))
        made.add_row(*(Text(cell) for cell in cells), style=_STYLES[outcome.result])
    return made


def _judged(gate: Gate) -> str:
    return f"judged by {gate.judge}" + (f", whose errors {gate.quality} corrects" if gate.quality else "")


def _cells(outcome: Outcome, check: Check) -> tuple[str, str, str, str, str]:
    """Rule, exit, value, limit, n."""
    where = check.name + (f" ({printable(check.category, 40)})" if check.category else "")
    rule = printable(outcome.rule.name or outcome.rule.metric, 60)
    return rule, where, value(outcome, check), outcome.rule.allowed, str(check.estimate.n)


def value(outcome: Outcome, check: Check) -> str:
    """A value with its interval, shares in percent; of `no_worse_than` the change."""
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
    """For each rule that does not pass, why, where it is worst."""
    return [
        f"{outcome.result}: {printable(outcome.rule.title, 100)}: {_where(outcome.worst)}: "
        f"{printable(outcome.worst.why, 300)}{_others(outcome)}"
        for outcome in gate.outcomes
        if outcome.result != "pass"
    ]


def _where(check: Check) -> str:
    return f"exit {check.name}" + (f", {printable(check.category, 40)}" if check.category else "")


def _others(outcome: Outcome) -> str:
    alike = sum(check.result == outcome.result for check in outcome.checks) - 1
    return f" (and {alike} more of {len(outcome.checks)} checks)" if alike else ""


def sentence(gate: Gate) -> str:
    """The result, in one sentence."""
    counts = {name: [o for o in gate.outcomes if o.result == name] for name in _STYLES}
    total = f"{len(gate.outcomes)} rule" + ("s" if len(gate.outcomes) > 1 else "")
    if gate.result == "pass":
        return f"pass: {total} kept"
    told = [
        f"{len(found)} of {total} {_SAY[name]}" for name, found in counts.items() if found and name != "pass"
    ]
    needs = max((outcome.more for outcome in gate.outcomes if outcome.more), default=0)
    more = f"; needs about {needs} more cases" if needs else ""
    return f"{gate.result}: {', '.join(told)}{more}"


def deployed(found: Deployed) -> str:
    """Where a config puts a model, and whether that was shown to be safe, in one sentence."""
    where = "its exit cannot be told" if found.exit is None else f"it runs at exit {found.name}"
    safe = {"pass": "which was shown to be safe", "fail": "which is not safe", "inconclusive": ""}[
        found.result
    ]
    told = ", ".join(part for part in (where, safe) if part)
    why = f": {found.why}" if found.why else ""
    weights = (
        ""
        if found.weights or found.exit is None
        else " (with the weights that were scanned; none were seen here)"
    )
    return f"{found.result}: {found.config}: {told}{why}{weights}"


_SAY: dict[Result, str] = {"fail": "failed", "inconclusive": "inconclusive", "pass": "kept"}


def markdown(gate: Gate) -> str:
    """A summary for a pull request or a job's page; every text of strangers is inert code."""
    lines = [
        f"### layeralign gate: {sentence(gate)}",
        "",
        f"Run {code(gate.run)}, model {code(gate.model)}, {code(_judged(gate))}"
        + (f", compared with {code(gate.base)}" if gate.base else ""),
        "",
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
    """A text of strangers as Markdown code on one line, in a table too: nothing in it has a meaning."""
    inert = printable(text).replace("`", "'").replace("|", "¦").strip()
    return f"`{inert or '–'}`"


def junit(gate: Gate) -> str:
    """JUnit XML: a test for each rule at each exit; what is inconclusive is an error, never skipped."""
    checks = [(outcome, check) for outcome in gate.outcomes for check in outcome.checks]
    counts = {name: str(sum(check.result == name for _, check in checks)) for name in _STYLES}
    numbers = {"tests": str(len(checks)), "failures": counts["fail"], "errors": counts["inconclusive"]}
    suites = ET.Element("testsuites", numbers)
    suite = ET.SubElement(suites, "testsuite", {"name": "layeralign gate", "skipped": "0", **numbers})
    properties = ET.SubElement(suite, "properties")
    for name, text in (
        ("run", gate.run),
        ("model", gate.model),
        ("judge", _judged(gate)),
        ("base", gate.base),
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
    """A text of strangers without what XML 1.0 has no place for."""
    return re.sub("[\ufffe\uffff]", "\ufffd", printable(text))


def write(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)
