"""The HTML board in a browser: that it needs nothing, sorts, filters, is readable by all, and trusts no string."""

import re
import shutil
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from oodbench.comparison.claims import Claim
from oodbench.leaderboard.board import (
    Board,
    ClassifierStamp,
    Column,
    Curve,
    DatasetStamp,
    DetectorStamp,
    Figure,
    LayerCell,
    Layers,
    RiskCurve,
    Row,
    Table,
)
from oodbench.leaderboard.drawing.html import _matrix, _round_scale, _scale, _shade, html

NAMES = ("energy", "entropy", "grad-combo", "random")
SETS = ("letters", "noise")
HOSTILE = (
    "<script>window.hacked=1</script>",
    '"><img src=x onerror="window.hacked=2">',
    "</script><svg onload=window.hacked=3>",
    "' onfocus=window.hacked=4 autofocus {{ 7*7 }} &lt;\u2028\u2029",
)
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


# Boards


def figure(value, **changes):
    return Figure(**{"value": value, "low": value - 0.01, "high": value + 0.01, "spread": 0.02} | changes)


def unknown_columns():
    return (
        Column(name="letters", metric="auroc", datasets=("letters",), group="near"),
        Column(name="noise", metric="auroc", datasets=("noise",), group="far"),
        Column(name="mean", metric="auroc", datasets=SETS, ranks=True),
    )


def row(name, rank, *values, **changes):
    figures = tuple(
        Figure(value=None) if v is None else figure(v, tied=rank == 1, exposed=s in changes.get("exposed", ()))
        for v, s in zip(values, (*SETS, ""), strict=False)
    )
    about = {"detector": name, "rank": rank, "rank_low": rank, "rank_high": rank and rank + 2, "tied": rank == 1}
    return Row(**about | {"cost_ms": 0.5, "figures": figures} | changes)


def unexposed(names=NAMES):
    return Table(
        protocol="unknown-unknowns",
        title="Unknown unknowns: known samples only",
        caption="AUROC; mean over seeds 0, 1",
        columns=unknown_columns(),
        rows=(
            row(names[0], 1, 0.9, 0.7, 0.8, cost_ms=2.0),
            row(names[1], 2, 0.6, 0.8, 0.7, cost_ms=10.0),
            row(names[2], 3, 0.7, 0.5, 0.6, cost_ms=1.0),
            row(names[3], None, None, 0.99, None, cost_ms=None),
        ),
        notes=(f"1 cell of {names[3]} failed: {names[1]}",),
    )


def known(names=NAMES):
    columns = (
        Column(name="failure AUROC", metric="failure_auroc", datasets=("digits",), ranks=True),
        Column(name="AURC", metric="aurc", datasets=("digits",), ascending=True),
    )
    rows = tuple(row(name, i + 1, 0.9 - i / 10, (0.02, 0.01, 0.04, 0.03)[i]) for i, name in enumerate(names))
    return Table(protocol="known", title="Known samples", caption="Wrong against right", columns=columns, rows=rows)


def exposed(names=NAMES):
    return Table(
        protocol="known-unknowns",
        title="Known unknowns",
        caption="AUROC",
        columns=unknown_columns(),
        rows=(
            row(names[2], 1, 0.9, 0.8, 0.85, exposed=SETS),
            row(names[2], 2, 0.9, 0.7, 0.8, exposed=("letters",)),
            row(names[2], 3, 0.5, 0.6, 0.55, exposed=("noise",)),
        ),
    )


def board(names=NAMES, **changes):
    grid = (0.0, 0.001, 0.01, 0.1, 0.5, 1.0)
    return Board(
        **{
            "suite": "small",
            "version": 1,
            "generator": "0.1.0",
            "records": 24,
            "digest": "ab" * 32,
            "seeds": (0, 1),
            "note": f"A remark.\n\nOf {names[0]}",
            "subset": f"Found: 10 of 20 of {names[1]}.",
            "claims": tuple(
                Claim(
                    number=i + 1,
                    text=f"Claim {names[i]}",
                    outcome=outcome,
                    criterion=f"Above 0 for {names[i]}.",
                    figure=0.01,
                    low=-0.02,
                    high=0.03,
                    details=(names[i],),
                )
                for i, outcome in enumerate(("held", "did not hold", "not separable"))
            ),
            "tables": (known(names), unexposed(names), exposed(names)),
            "layers": Layers(
                metrics=("l1", "max"),
                layers=("conv", names[0], "all"),
                datasets=SETS,
                cells=tuple(
                    LayerCell(metric="l1", layer=layer, dataset=s, value=v, low=v - 0.1, high=v + 0.1)
                    for s in SETS
                    for layer, v in (("conv", 0.3), (names[0], 0.75), ("all", 0.95))
                ),
                seeds=(0,),
            ),
            "curves": tuple(
                Curve(
                    detector=name,
                    dataset=s,
                    fpr=grid,
                    tpr=tuple(x ** (0.2 * (i + 1)) for x in grid),
                    edges=(-1.0, 0.0, 1.0, 2.0),
                    right=(0.8, 0.2, 0.0),
                    wrong=(0.25, 0.5, 0.25),
                    unknown=(0.0, 0.3, 0.7),
                )
                for i, name in enumerate(names)
                for s in SETS
            ),
            "risks": tuple(RiskCurve(detector=name, coverage=(0.5, 1.0), risk=(0.01, 0.05)) for name in names),
            "datasets": (
                DatasetStamp(
                    name="letters",
                    adapter="letters",
                    split="test",
                    n=10,
                    available=20,
                    official=None,
                    sha256="cd" * 32,
                    source=names[1],
                ),
            ),
            "classifiers": (ClassifierStamp(seed=0, name="cnn", accuracy=0.99, weights_sha256="ef" * 32),),
            "detectors": tuple(DetectorStamp(name=name, version="1", distribution="oodbench") for name in names),
            "made_with": ("torch 2.15.0",),
            "command": f"oodbench leaderboard build {names[3]} -o board.html",
        }
        | changes
    )


def many_rows():
    """Fifty rows, one with a name longer than a phone is wide, and nothing else on the board."""
    rows = [row(f"detector-{i}", i + 1, 0.9 - i / 100, 0.5, 0.7, exposed=SETS[:1]) for i in range(49)]
    rows.append(row("x" * 300, None, None, 0.5, None))
    table = unexposed().model_copy(update={"rows": tuple(rows)})
    empty = dict.fromkeys(("claims", "curves", "risks", "datasets", "classifiers", "detectors", "made_with"), ())
    return board(tables=(table,), layers=None, seeds=(0,), note="", subset="", command="y" * 300, **empty)


# Without a browser


def test_the_same_boards_give_the_same_bytes():
    boards = [board(), many_rows()]
    assert html(boards) == html([Board.model_validate_json(one.model_dump_json()) for one in boards])


def test_nothing_is_loaded():
    page = html([board()])
    assert not re.search(r"""(?:src|href)=(?!["']?(?:#|data:,))|@import|url\((?!#)""", page)


def test_no_string_of_a_record_ends_the_script_of_data():
    page = html([board(HOSTILE)])
    data = page.split('id="data">')[1].split("</script>")[0]
    assert "window.hacked=3" in data
    assert not set("<>&\u2028\u2029") & set(data)


def test_a_scale_keeps_outliers_from_squeezing_the_others():
    close = [figure(0.9 + i / 1000) for i in range(8)]
    scale = _scale([*close, figure(0.1), Figure(value=None)])
    assert scale.low > 0.8
    assert scale.of(figure(0.1)).beyond == "low"
    assert scale.of(close[0]).beyond == ""
    assert scale.of(Figure(value=None)) is None


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (0.0, 0.0), (1.0, 1.0), (0.001234, 0.0013), (-3.0, 900.0)])
def test_a_scale_encloses_its_range_with_few_digits(low, high):
    scale = _round_scale(low, high)
    assert scale.low <= low <= high <= scale.high
    assert scale.low < scale.high
    assert [float(end) for end in scale.ends()] == pytest.approx([scale.low, scale.high])


def test_one_seed_and_no_interval_are_drawn_without_ticks_and_bar():
    scale = _scale([figure(0.5), figure(0.7)])
    drawn = scale.of(Figure(value=0.6))
    assert drawn.ticks == ()
    assert drawn.start == drawn.stop == drawn.point


def test_text_on_every_shade_is_readable():
    def luminance(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for step in range(201):
        shade = _shade(step / 200)
        dark, light = sorted([luminance(shade.fill), luminance(shade.text)])
        assert (light + 0.05) / (dark + 0.05) >= 4.5


# In a browser


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    program = next((path for path in found if path), None)
    if program is None:
        pytest.skip("no chromium, chromium-browser or google-chrome is installed")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield running
        running.close()


@dataclass
class Complaints:
    """What a page said and asked for."""

    console: list = field(default_factory=list)
    errors: list = field(default_factory=list)
    requests: list = field(default_factory=list)


@pytest.fixture
def show(browser, tmp_path):
    """Opens boards from disk; at the end no page may have complained or asked for anything but its file."""
    contexts, complaints = [], Complaints()

    def opened(*boards, width=1280, **options):
        file = tmp_path / f"board{len(contexts)}.html"
        file.write_text(html(boards), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(5000)
        page.on("console", lambda message: complaints.console.append(message.text))
        page.on("pageerror", lambda error: complaints.errors.append(str(error)))
        page.on("request", lambda request: complaints.requests.append(request.url))
        page.on("dialog", lambda dialog: complaints.errors.append(dialog.message))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints.console == []
    assert complaints.errors == []
    assert [url for url in complaints.requests if not re.fullmatch(r"file://.*/board\d+\.html|data:,", url)] == []


TABLE = "#b0-t1-table"
TOOLS = f'.tools[data-for="{TABLE[1:]}"]'


def detectors(page, table=TABLE):
    return page.locator(f"{table} tbody tr:not(.line):visible th.detector").all_inner_texts()


def head(page, name, table=TABLE):
    return page.locator(f"{table} thead th", has=page.get_by_role("button", name=name, exact=True))


def test_every_part_is_drawn_and_nothing_complains(show):
    page = show(board(), many_rows(), board(layers=None, curves=(), risks=(), tables=()))
    assert page.locator("#b0 .chart svg[role=img]").count() == 3
    assert page.locator("#b1 .chart, #b2 .chart").count() == 0
    assert page.locator("#b0 .heat").count() == 3
    headings = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(one => Number(one.tagName[1]))")
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))
    ids = page.locator("[id]").evaluate_all("all => all.map(one => one.id)")
    assert len(ids) == len(set(ids))
    named = page.locator("[aria-labelledby], [aria-describedby], [for]").evaluate_all(
        "all => all.flatMap(e => ['aria-labelledby', 'aria-describedby', 'for'].flatMap(a => (e.getAttribute(a) || '')"
        ".split(' ').filter(Boolean)))"
    )
    assert set(named) <= set(ids)


def test_a_click_sorts_the_better_first_and_the_next_the_other_way(show):
    page = show(board())
    assert detectors(page) == ["energy", "entropy", "grad-combo", "random"]
    assert head(page, "rank").get_attribute("aria-sort") == "ascending"
    button = page.locator(TABLE).get_by_role("button", name="noise", exact=True)
    button.click()
    # random has the best figure of all, and no rank.
    assert detectors(page) == ["entropy", "energy", "grad-combo", "random"]
    assert head(page, "noise").get_attribute("aria-sort") == "descending"
    assert head(page, "rank").get_attribute("aria-sort") is None
    assert "sorted by noise, best first" in page.locator(f"{TOOLS} .count").inner_text()
    button.click()
    assert detectors(page) == ["grad-combo", "energy", "entropy", "random"]
    assert head(page, "noise").get_attribute("aria-sort") == "ascending"
    button.click()
    assert detectors(page) == ["entropy", "energy", "grad-combo", "random"]


def test_smaller_is_better_where_the_column_says_so(show):
    page = show(board())
    page.locator("#b0-t0-table").get_by_role("button", name="AURC", exact=True).click()
    assert detectors(page, "#b0-t0-table") == ["entropy", "energy", "random", "grad-combo"]
    assert head(page, "AURC", "#b0-t0-table").get_attribute("aria-sort") == "ascending"


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("ms / image", ["grad-combo", "energy", "entropy", "random"]),
        ("detector", ["energy", "entropy", "grad-combo", "random"]),
        ("letters", ["energy", "grad-combo", "entropy", "random"]),
    ],
)
def test_the_keyboard_sorts_and_incomplete_rows_stay_last(show, column, expected):
    page = show(board())
    button = page.locator(TABLE).get_by_role("button", name=column, exact=True)
    button.focus()
    page.keyboard.press("Enter")
    assert detectors(page) == expected
    page.keyboard.press("Space")
    assert detectors(page) == [*reversed(expected[:-1]), "random"]
    assert button.evaluate("one => one === document.activeElement")


def test_the_filter_hides_rows_and_says_so(show):
    page = show(board())
    count = page.locator(f"{TOOLS} .count")
    assert count.get_attribute("aria-live") == "polite"
    field_ = page.locator(TOOLS).get_by_label("Detectors")
    field_.fill("EN")
    assert detectors(page) == ["energy", "entropy"]
    assert count.inner_text().startswith("2 of 4 rows")
    assert not page.locator(f"{TABLE} .line").is_visible()
    field_.fill("grad-, random,")
    assert detectors(page) == ["grad-combo", "random"]
    assert page.locator(f"{TABLE} .line").is_visible()
    field_.fill("nothing")
    assert count.inner_text().startswith("0 of 4 rows")
    field_.fill("")
    assert len(detectors(page)) == 4


def test_the_group_hides_the_other_columns(show):
    page = show(board())
    page.locator(TOOLS).get_by_label("Columns").select_option("near")
    heads = page.locator(f"{TABLE} thead th:visible .label").all_inner_texts()
    assert [text.strip(" \u00a0↑↕") for text in heads] == ["rank", "detector", "letters", "ms / image"]
    assert page.locator(f"{TABLE} tbody tr:first-child td.f:visible .x").all_inner_texts()[0].startswith("0.9000")
    assert page.locator(f"{TABLE} tbody tr:first-child td.f:visible").count() == 1
    assert "near" in page.locator(f"{TOOLS} .count").inner_text()
    assert page.locator('.tools[data-for="b0-t0-table"]').get_by_label("Columns").count() == 0


def test_the_numbers_of_an_interval_appear_by_mouse_by_keyboard_and_for_all(show):
    page = show(board())
    cell = page.locator(f"{TABLE} tbody tr:first-child td.f").first
    numbers = cell.locator(".n")
    assert numbers.text_content() == "[0.8900, 0.9100] ± 0.0200"
    width = "one => one.getBoundingClientRect().width"
    assert numbers.evaluate(width) <= 1
    cell.hover()
    assert numbers.evaluate(width) > 50
    page.keyboard.press("Escape")
    assert numbers.evaluate(width) <= 1
    page.mouse.move(0, 0)
    cell.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    focused = page.locator(f"{TABLE} td.f:focus")
    assert focused.locator(".x").inner_text().startswith("0.8000")
    assert focused.locator(".n").evaluate(width) > 50
    page.locator(TOOLS).get_by_label("intervals as numbers").check()
    assert all(w > 50 for w in page.locator(f"{TABLE} td.f .n").evaluate_all(f"all => all.map({width})"))


def test_marks_do_not_depend_on_colour(show):
    page = show(board())
    first = page.locator("#b0-t2-table tbody tr").first
    assert first.locator("td.f .x b").all_inner_texts() == ["*", "*"]
    assert "≈" in first.locator("td.rank").inner_text()
    assert "tied with the best" in first.locator("td.f").first.text_content()
    weights = page.locator(f"{TABLE} tbody:first-of-type tr:nth-child(-n+2) td.f .x").evaluate_all(
        "all => all.map(one => getComputedStyle(one).fontWeight)"
    )
    assert weights == ["700"] * 3 + ["400"] * 3
    outcomes = page.locator(".outcome").all_inner_texts()
    assert outcomes == ["✓ held", "✗ did not hold", "≈ not separable"]


def test_charts_follow_their_controls_and_give_their_numbers(show):
    page = show(board())
    roc = page.locator('.chart[data-chart="roc"]')
    curves = roc.locator(".plot path.curve")
    assert curves.count() == 4
    assert "energy 0.502, entropy 0.265" in roc.locator("svg[role=img] > desc").text_content()
    before = curves.first.get_attribute("d")
    roc.get_by_label("grad-combo", exact=True).uncheck()
    assert curves.count() == 3
    roc.get_by_label("logarithmic").check()
    assert curves.first.get_attribute("d") != before
    roc.get_by_label("Unknown set").select_option("noise")
    assert roc.locator("svg[role=img] > title").text_content() == "ROC curves, noise"
    roc.locator("summary").click()
    assert roc.locator(".figures thead th").all_inner_texts()[1:] == ["energy", "entropy", "random"]
    assert roc.locator(".figures tbody tr").count() == 6
    roc.get_by_role("button", name="None").click()
    assert curves.count() == 0
    assert roc.locator("svg[role=img] > desc").text_content() == "No detector is chosen."
    scores = page.locator('.chart[data-chart="scores"]')
    scores.get_by_label("Detector").select_option("random")
    assert "random on letters" in scores.locator("svg[role=img] > title").text_content()
    assert scores.locator(".plot path.curve").count() == 3
    layers = page.locator(".layers .heat:visible caption b")
    assert layers.all_inner_texts() == ["letters"]
    page.locator("section", has=page.locator(".layers")).get_by_label("Unknown set").select_option("noise")
    assert layers.all_inner_texts() == ["noise"]


def test_heat_maps_hold_the_matrix_of_exposed_and_tested(show):
    page = show(board())
    rows = page.locator("#b0-m0 >> xpath=..").locator("tbody tr").all()
    shown = [[one.split(",")[0] for one in line.locator("th, .x").all_text_contents()] for line in rows]
    assert shown == [
        ["nothing", "0.7000", "0.5000"],
        ["letters", "0.9000*", "0.7000"],
        ["noise", "0.5000", "0.6000*"],
        ["all", "0.9000*", "0.8000*"],
    ]


def test_a_mean_over_one_set_is_no_set_of_the_matrix():
    columns = (
        Column(name="noise", metric="auroc", datasets=("noise",)),
        Column(name="failure AUROC mean", metric="failure_auroc", datasets=("noise",), ranks=True),
    )
    tables = [
        Table(
            protocol=protocol, title="", caption="", columns=columns, rows=(row("meta", 1, first, 0.9, exposed=sets),)
        )
        for protocol, first, sets in (("unknown-unknowns", 0.5, ()), ("known-unknowns", 0.6, ("noise",)))
    ]
    (heat,) = _matrix(board(tables=tuple(tables)))
    assert heat.columns == ("noise",)
    assert [(one.name, one.cells[0].figure.value) for one in heat.rows] == [("nothing", 0.5), ("noise", 0.6)]


def test_a_table_without_results_and_no_board_are_pages(show):
    empty = Table(
        protocol="known", title="Known", caption="No cell has a result", columns=(), rows=(row("energy", None),)
    )
    page = show(board(tables=(empty, empty.model_copy(update={"rows": ()}))), board(tables=()))
    assert detectors(page, "#b0-t0-table") == ["energy"]
    assert show().locator("h1").inner_text() == "Leaderboards"


def test_hostile_strings_are_shown_and_do_nothing(show):
    page = show(board(HOSTILE, suite=HOSTILE[0]), board(HOSTILE, suite=HOSTILE[2]))
    for label in page.locator(".names label, summary").all():
        label.hover()
    page.locator("summary").evaluate_all("all => all.forEach(one => one.click())")
    page.wait_for_timeout(100)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, iframe, object, [onload], [onerror], [onfocus], svg[onload]").count() == 0
    texts = page.locator(f"{TABLE} th.detector").all_text_contents()[1:]
    assert texts == list(HOSTILE)
    for name in HOSTILE:
        assert page.locator('.chart[data-chart="roc"]').first.get_by_text(name, exact=True).count() >= 1
    assert page.locator("#b0-command").text_content() == f"oodbench leaderboard build {HOSTILE[3]} -o board.html"


CONTRASTS = """
(selectors) => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255).map((v) =>
      v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) return colour;
      if (colour[3] > 0) throw new Error("a background is half transparent");
    }
    throw new Error("nothing has a background");
  };
  return selectors.map(([selector, property]) => {
    const found = [...document.querySelectorAll(selector)].filter(
      (one) => one.checkVisibility() && getComputedStyle(one)[property] !== "none");
    if (!found.length) throw new Error(`nothing is ${selector}`);
    const ratios = found.map((one) => {
      const pair = [luminance(parse(getComputedStyle(one)[property])), luminance(behind(one))].sort((a, b) => a - b);
      return (pair[1] + 0.05) / (pair[0] + 0.05);
    });
    return [selector, Math.min(...ratios)];
  });
}
"""
# fmt: off
TEXTS = (
    "body", "p", "h1", "h2", "h3", "a", "button", "input", "select", "label", "summary", "td", "th", "caption>span",
    ".x", ".outcome", ".bracket", ".criterion", ".warning", ".note", ".facts", ".kind", ".key", ".count", ".tag",
    ".tag>b", ".ends", ".places", ".tie", ".notes>li", ".heat>tbody>tr>td", ".source", ".hash", "pre", ".stamps>li",
    "legend", ".names>li", ".kinds>li", "footer>p", ".line",
)
# fmt: on
GRAPHICS = (
    *((selector, "stroke") for selector in (".i>path", ".i>circle", ".curve", ".axis")),
    *((selector, "borderTopColor") for selector in ("button", "input[type=text]", "select", ".claim")),
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("by", ["system", "button"])
def test_contrast(show, scheme, by):
    other = {"light": "dark", "dark": "light"}[scheme]
    page = show(board(), color_scheme=scheme if by == "system" else other)
    if by == "button":
        page.get_by_role("button", name="Dark colours").click()
    assert (
        page.get_by_role("button", name="Dark colours").get_attribute("aria-pressed") == str(scheme == "dark").lower()
    )
    red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (red + green + blue > 384) == (scheme == "light")
    texts = page.evaluate(CONTRASTS, [[selector, "color"] for selector in TEXTS])
    assert [one for one in texts if one[1] < 4.5] == []
    graphics = page.evaluate(CONTRASTS, [list(one) for one in GRAPHICS])
    assert [one for one in graphics if one[1] < 3 and one[0] != "button"] == []


def test_the_choice_of_colours_is_remembered(show):
    page = show(board(), color_scheme="light")
    page.get_by_role("button", name="Dark colours").click()
    page.reload()
    assert page.get_by_role("button", name="Dark colours").get_attribute("aria-pressed") == "true"
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


@pytest.mark.parametrize("boards", [[board()], [many_rows()], [board(), many_rows()], [board(HOSTILE)]])
def test_a_phone_is_not_scrolled_sideways(show, boards):
    page = show(*boards, width=375)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")
    page.locator(".numbers").first.check()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    # What is wider scrolls in a region of its own, and the name of the detector stays.
    region = page.locator(".scroll", has=page.locator("table.board")).first
    assert region.get_attribute("tabindex") == "0"
    name = region.locator("th.detector").nth(1)
    region.evaluate("one => { one.scrollLeft = 200; }")
    assert region.evaluate("one => one.scrollLeft") > 50
    assert name.evaluate("one => one.getBoundingClientRect().left") >= 0
    assert name.evaluate("one => one.getBoundingClientRect().width") < 200


def test_it_is_readable_without_scripts(show):
    page = show(board(), java_script_enabled=False)
    assert page.locator("table.board:visible").count() == 3
    assert page.locator("table.board").nth(1).locator("tbody tr:not(.line):visible").count() == 4
    assert page.locator("table.heat:visible").count() == 3
    assert page.locator(".noscript:visible").count() == 3
    assert page.locator("button:visible, .tools:visible").count() == 0


NAMED = """
(element) => {
  const byId = (ids) => ids.split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join(" ");
  if (element.hasAttribute("aria-label")) return element.getAttribute("aria-label").trim();
  if (element.hasAttribute("aria-labelledby")) return byId(element.getAttribute("aria-labelledby")).trim();
  if (element.matches("input, select")) {
    // A label around a select has the text of its options too.
    const around = [...element.labels].flatMap((label) => [...label.childNodes].filter((one) => one !== element));
    return around.map((one) => one.textContent).join(" ").trim();
  }
  return element.getAttribute("role") === "region" ? "" : element.textContent.trim();
}
"""
INTERACTIVE = "a[href], button, input, select, summary, [tabindex='0']"


def test_tab_reaches_everything_and_everything_has_a_name_and_a_size(show):
    page = show(board())
    wanted = page.locator(INTERACTIVE).evaluate_all(
        "all => all.filter(one => one.checkVisibility()).map((one, i) => (one.dataset.stop = String(i)))"
    )
    reached = set()
    for _ in range(len(wanted) + 20):
        page.keyboard.press("Tab")
        stop = page.evaluate(
            "(() => { const one = document.activeElement; const outline = getComputedStyle(one);"
            " return [one.dataset.stop, one === document.body || parseFloat(outline.outlineWidth) >= 2]; })()"
        )
        assert stop[1], f"the focus on {stop[0]} cannot be seen"
        reached.add(stop[0])
    missed = [one for one in wanted if one not in reached]
    assert [page.locator(f"[data-stop='{one}']").evaluate("e => e.outerHTML.slice(0, 90)") for one in missed] == []
    nameless = page.locator("[data-stop]").evaluate_all(
        f"all => all.filter(one => !({NAMED})(one)).map(e => e.outerHTML)"
    )
    assert nameless == []
    small = page.locator("button, select, summary, nav a, label, input[type=text]").evaluate_all(
        "all => all.filter(one => one.checkVisibility() && one.getBoundingClientRect().height < 24)"
        ".map(one => one.outerHTML)"
    )
    assert small == []


def test_the_command_is_copied_or_selected(show):
    page = show(board())
    page.get_by_role("button", name="Copy the command").click()
    page.wait_for_function("document.querySelector('.copied').textContent !== ''")
    assert page.locator(".copied").inner_text().split(";")[0].rstrip(".") in {"Copied", "Selected"}


def test_nothing_moves(show):
    page = show(board(), reduced_motion="reduce")
    moving = page.locator("*").evaluate_all(
        "all => all.map(one => getComputedStyle(one)).filter(style => style.animationName !== 'none'"
        " || parseFloat(style.transitionDuration) > 0 || style.scrollBehavior === 'smooth').length"
    )
    assert moving == 0


def test_print_is_light_and_without_controls(show):
    page = show(board(), color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(253, 252, 249)"
    assert page.locator(".tools:visible, #theme:visible").count() == 0
