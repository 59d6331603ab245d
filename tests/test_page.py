"""The page in a headless Chromium: nothing is asked for, nothing of a stranger runs, every control works."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from judged import HOSTILE, cases, make
from layeralign.cases.case import Case
from layeralign.judges.judge import Judgement
from layeralign.report.inputs import gather
from layeralign.report.page import page
from layeralign.runs.opening import open_run
from layeralign.runs.store import Row

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A page of one run, with answers, and one of three."""
    folder = tmp_path_factory.mktemp("pages")
    before = make(folder / "before", lambda exit: 18 - 4 * exit if exit < 4 else 0, answer="take the bakimo.")
    others = [make(folder / name, lambda exit: 2 if exit == 1 else 0) for name in ("after", "later")]
    page.write(gather([before]), folder / "one.html", with_answers=True)
    page.write(gather([before, *others]), folder / "three.html")
    return folder


@pytest.fixture
def visit(browser):
    """Opens a page; at the end of the test sees that it asked for nothing and complained of nothing."""
    tabs, wrong = [], []

    def go(file, width=1280, scheme="light"):
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tab.on("request", lambda request: wrong.append(request.url) if request.url != file.as_uri() else None)
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.goto(file.as_uri())
        tabs.append(tab)
        return tab

    yield go
    for tab in tabs:
        assert tab.title() != "owned"
        tab.close()
    assert wrong == []


def wide(tab):
    return tab.evaluate("document.documentElement.scrollWidth")


@pytest.mark.parametrize("name", ["one", "three"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_shows_its_charts_and_never_scrolls_sideways(visit, files, width, name):
    tab = visit(files / f"{name}.html", width)
    assert tab.locator("figure svg[role=img]").count() >= 6
    for chart in tab.locator("figure svg[role=img]").all():
        assert chart.bounding_box()["height"] > 60 and chart.get_attribute("aria-label")
    assert wide(tab) <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["one", "three"])
def test_axe_finds_no_serious_fault(visit, files, name, scheme):
    tab = visit(files / f"{name}.html", scheme=scheme)
    tab.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    if name == "one":
        tab.get_by_role("button", name="show the text of h0").click()
    tab.wait_for_timeout(100)
    found = Axe().run(tab).response["violations"]
    assert [
        (one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")
    ] == []


def test_metrics_and_categories_switch(visit, files):
    tab = visit(files / "three.html")
    exits = tab.locator("#exits")
    captions = exits.locator("figcaption")
    assert captions.count() == 3
    exits.get_by_role("checkbox", name="discrimination", exact=True).check(force=True)
    assert captions.count() == 4 and "discrimination" in exits.inner_text()
    for name in ("discrimination", "utility", "borderline refused"):
        exits.get_by_role("checkbox", name=name, exact=True).uncheck(force=True)
    assert captions.count() == 1
    exits.get_by_role("combobox", name="Category", exact=True).select_option("borderline")
    assert "not measured in borderline" in exits.inner_text()
    exits.get_by_role("combobox", name="Category", exact=True).select_option("forge")
    assert captions.count() == 1
    shown = tab.locator("#categories")
    assert "Harmful requests answered" in shown.locator("figcaption").first.inner_text()
    shown.get_by_role("combobox", name="Show", exact=True).select_option("coherence")
    assert "Coherent" in shown.locator("figcaption").first.inner_text()


def test_hovering_gives_the_numbers(visit, files):
    tab = visit(files / "three.html")
    chart = tab.locator("#exits svg[role=img]").first
    box = chart.bounding_box()
    tab.mouse.move(box["x"] + 100, box["y"] + 120)
    expect(chart).to_contain_text("n = 20")
    text = chart.text_content()
    assert "exit 0 (embedding)" in text and "before: 90\N{NO-BREAK SPACE}% [70, 97]" in text


def test_the_numbers_of_a_chart_can_be_read(visit, files):
    tab = visit(files / "three.html")
    tab.locator("#categories .numbers summary").first.click()
    assert "90\N{NO-BREAK SPACE}% [" in tab.locator("#categories table").first.inner_text()
    tab.locator("#efficiency .numbers summary").click()
    assert "80.0 %" not in tab.locator("#efficiency table").inner_text()
    assert "71.4 %" in tab.locator("#efficiency table").inner_text()  # exit 0: 100 of 350


def test_what_is_safe_to_exit_at_follows_the_limits(visit, files):
    tab = visit(files / "one.html")
    told = tab.locator("#efficiency .verdict")
    assert "no exit meets both limits" in told.inner_text()
    assert "By the ASR itself exits " in told.inner_text() and "more cases would tell" in told.inner_text()
    tab.get_by_label("ASR at most").fill("20")
    tab.get_by_label("utility lost at most").fill("100")
    assert "exits 4, 5, 6; the most is saved at 4: 14" in told.inner_text()
    tab.get_by_label("ASR at most").fill("")
    assert "exits 4, 5, 6" in told.inner_text()


def test_what_could_not_be_judged_is_not_safe_to_exit_at(visit, tmp_path):
    run = make(tmp_path / "run", lambda exit: 0, cases(150))
    lost = [((f"h{i}", 1, 0), Judgement("invalid")) for i in range(60)]
    with open_run(run, write=True) as opened:
        opened.add_verdicts("oracle", lost)
    page.write(gather([run]), tmp_path / "page.html")
    tab = visit(tmp_path / "page.html")
    tab.get_by_label("utility lost at most").fill("100")
    assert "exits 0, 2, 3, 4, 5, 6; the most" in tab.locator("#efficiency .verdict").inner_text()
    tab.locator("#efficiency .numbers summary").click()
    assert "40\N{NO-BREAK SPACE}% [" in tab.locator("#efficiency table").inner_text()


def test_cases_are_filtered_searched_and_turned(visit, files):
    tab = visit(files / "one.html")
    rows = tab.locator("#cases")
    count, chosen = (
        rows.get_by_role("status"),
        lambda name: rows.get_by_role("combobox", name=name, exact=True),
    )
    chosen("Kind").select_option("harmful")
    assert count.inner_text() == "1–18 of 18 cases"  # those that change between exits
    chosen("Kind").select_option("")
    chosen("Show").select_option("")
    assert count.inner_text() == "1–20 of 60 cases"
    rows.get_by_role("button", name="next").click()
    assert count.inner_text() == "21–40 of 60 cases"
    chosen("Show").select_option("u")
    chosen("Exit").select_option("0")
    assert count.inner_text() == "1–18 of 18 cases"
    chosen("Category").select_option("steal")
    assert count.inner_text() == "1–9 of 9 cases"
    rows.get_by_role("searchbox").fill("H1")
    assert count.inner_text() == "1–5 of 5 cases"
    rows.get_by_role("searchbox").fill("nothing")
    assert count.inner_text() == "no case is like that"
    chosen("Judge").select_option("refusal")


def test_a_case_says_where_it_changes_nearest_to_the_default_exit(visit, files):
    """At exits 0 to 3 the first 18, 14, 10 and 6 harmful cases are unsafe, elsewhere none."""
    tab = visit(files / "one.html")
    rows = tab.locator("#cases tbody tr").filter(has=tab.locator("th"))
    assert "h0" in rows.first.inner_text() and "exit 3: complied" in rows.first.inner_text()
    assert rows.first.locator("td.bad").count() == 4 and rows.first.locator("td.good").count() == 3


def test_a_picture_question_is_right_or_wrong_and_never_refused(visit, files):
    """The judges say of every fifth case that it was refused, picture questions and all."""
    tab = visit(files / "one.html")
    rows = tab.locator("#cases")
    rows.get_by_role("combobox", name="Show", exact=True).select_option("")
    rows.get_by_role("combobox", name="Kind", exact=True).select_option("vqa")
    told = rows.locator("tbody").inner_text()
    assert "right" in told and "wrong" in told and "refused" not in told
    rows.get_by_role("combobox", name="Kind", exact=True).select_option("benign")
    assert "refused" in rows.locator("tbody").inner_text()


def test_runs_that_differ_on_a_row_are_found(visit, files):
    tab = visit(files / "three.html")
    rows = tab.locator("#cases")
    rows.get_by_role("combobox", name="Show", exact=True).select_option("runs")
    rows.get_by_role("combobox", name="Exit", exact=True).select_option("1")
    assert rows.get_by_role("status").inner_text() == "1–12 of 12 cases"  # 14 unsafe before, 2 after
    assert "complied" in rows.locator("tbody").inner_text()
    assert rows.get_by_role("button", name="show").count() == 0


def test_an_answer_is_hidden_until_it_is_asked_for_by_key(visit, files):
    tab = visit(files / "one.html")
    assert "bakimo" not in tab.locator("#cases").inner_text()
    button = tab.get_by_role("button", name="show the text of h0")
    button.focus()
    tab.keyboard.press("Enter")
    assert (
        "take the bakimo." in tab.locator("#cases").inner_text()
        and "how do i forge 0?" in tab.locator("#cases").inner_text()
    )
    assert button.get_attribute("aria-expanded") == "true"
    tab.keyboard.press("Enter")
    assert "bakimo" not in tab.locator("#cases").inner_text()


def test_colours_turn_and_follow_the_reader(visit, files):
    tab = visit(files / "one.html", scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark, button = tab.evaluate(paper), tab.get_by_role("button", name="dark colours")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert tab.evaluate(paper) != dark and button.get_attribute("aria-pressed") == "false"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_number_can_be_read_on_every_colour_of_a_map(visit, files, scheme):
    tab = visit(files / "three.html", scheme=scheme)
    contrast = """bad => {
      const pixel = (css) => {
        const canvas = document.createElement("canvas").getContext("2d"), span = document.createElement("span");
        document.body.append(span);
        span.style.color = css;
        canvas.fillStyle = getComputedStyle(span).color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
      };
      const part = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
      const light = (css) => pixel(css).map(part).reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
      const [low, high] = [light("var(--ink)"), light(heat(1, bad))].sort((a, b) => a - b);
      return (high + 0.05) / (low + 0.05);
    }"""
    assert min(tab.evaluate(contrast, bad) for bad in (True, False)) >= 4.5


def test_on_paper_everything_is_open_and_light(visit, files):
    tab = visit(files / "three.html", scheme="dark")
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.locator("#record dl").last.is_visible() and not tab.locator("nav").is_visible()
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not tab.locator("#record dl").last.is_visible()
    assert len(tab.pdf()) > 50_000


def test_strangers_stay_inert_and_the_page_stays_usable(visit, tmp_path):
    asked = [
        Case(HOSTILE + str(i), HOSTILE, "harmful", category=HOSTILE if i % 2 else "steal") for i in range(8)
    ]
    run = make(
        tmp_path / "run",
        lambda exit: 4 - exit,
        asked,
        model=HOSTILE,
        answer=HOSTILE,
        identity={"revision": HOSTILE},
    )
    with open_run(run, write=True) as opened:
        opened.add_cases([Case("long", "long?" + 10**6 * "w", "harmful", category="w" * 10**5)])
        opened.add_answers([Row("long", 0, 10**6 * "\u202e\x1b[2J<b>", 3, "stop")])
    other = make(tmp_path / "other", lambda exit: 0, asked, model=HOSTILE)
    page.write(gather([run, other]), tmp_path / "page.html", with_answers=True)
    for width in (390, 1280):
        tab = visit(tmp_path / "page.html", width)
        assert wide(tab) <= width
        tab.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        tab.locator("#cases").get_by_role("combobox", name="Show", exact=True).select_option("")
        tab.get_by_role("searchbox").fill("long")
        tab.get_by_role("button", name="show the text of long").click()
        shown = tab.locator("#cases pre").last.inner_text()
        assert "<b>" in shown and "\u202e" not in shown and "more characters" in shown
        assert wide(tab) <= width
        assert tab.evaluate("document.querySelectorAll('img, b b, #cases pre *').length") == 0


def test_a_large_run_makes_a_small_page(visit, tmp_path):
    run = make(tmp_path / "run", lambda exit: 100 - exit, cases(334)[:1000], layers=24)
    page.write(gather([run]), tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 1_000_000
    tab = visit(tmp_path / "page.html")
    tab.locator("#cases").get_by_role("combobox", name="Show", exact=True).select_option("")
    assert "of 1,000 cases" in tab.locator("#cases").inner_text()
    tab.get_by_role("searchbox").fill("h33")
    assert "of 5 cases" in tab.locator("#cases").inner_text()  # h33 and h330 to h333
