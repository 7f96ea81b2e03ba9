"""The figures of a tutorial that can be moved: their numbers are Python's, and what a reader does to them shows.

The numbers are compared in Node.js with loops of our own. For the browser, the notebook's outputs stand on a page as Quarto
would put them there, next to the JavaScript.
"""

import cmath
import json
import math
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import reference
from serving import Site, new_context, visit

TUTORIALS = Path(__file__).resolve().parents[2] / "nbs" / "tutorials"
MODULE = TUTORIALS / "moving_figures.js"
CELLS = json.loads((TUTORIALS / "ten_minutes.ipynb").read_text(encoding="utf-8"))["cells"]
STRATEGIES = ("hard", "semi-hard", "easy", "all")
PLANE = 8.8  # as many units of the plane is its picture wide
WIDTHS, THEMES = (390, 1280), ("light", "dark")
STEP = 1e-30  # into the imaginary: a derivative without a difference

pytestmark = [pytest.mark.every, pytest.mark.xdist_group("site")]


# The numbers


@pytest.fixture(scope="module")
def node():
    """A function that gives the value of a JavaScript expression over the module's functions and `cases`."""

    def value(expression, cases):
        program = f"{MODULE.read_text(encoding='utf-8')}\nconst cases = {json.dumps(cases)};\nconsole.log(JSON.stringify({expression}));"
        run = subprocess.run(["node", "--input-type=module"], input=program, capture_output=True, text=True, encoding="utf-8")
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    return value


def drawn_cases():
    """Anchors with 1 to 4 positives and 1 to 5 negatives, each with every strategy."""
    generator = np.random.default_rng(0)
    for number in range(100):
        positives, negatives = generator.integers(1, 5), generator.integers(1, 6)
        rows = generator.normal(scale=2, size=(1 + positives + negatives, 2)).tolist()
        points = {"anchor": rows[0], "positives": rows[1 : 1 + positives], "negatives": rows[1 + positives :]}
        yield {"points": points, "strategy": STRATEGIES[number % 4], "margin": float(generator.uniform(0, 3))}


def expected_triplets(points, strategy, margin):
    """Positive, negative, their distances and the loss, for each triplet of the anchor."""
    rows = [points["anchor"], *points["positives"], *points["negatives"]]
    first = 1 + len(points["positives"])
    labels = [0] * first + [1] * len(points["negatives"])
    table = reference.pairwise("euclidean", rows, rows)
    positive = "all" if strategy == "all" else "hard"
    for p, n in reference.triplets_of(labels, table, positive=positive, negative=strategy)[0]:
        loss = reference.loss_of_triplet(table[0][p], table[0][n], margin=margin)
        yield {"positive": p - 1, "negative": n - first, "toPositive": table[0][p], "toNegative": table[0][n], "loss": loss}


def expected_slope(points, triplets, margin, kind, number, axis):
    """By how much the mean loss of the active triplets grows as one coordinate does: the imaginary part of one step into it."""
    points = {**points, "anchor": [points["anchor"]]}
    rows = {name: [[complex(x) for x in row] for row in points[name]] for name in points}
    rows[kind][number][axis] += STEP * 1j
    (anchor,) = rows["anchor"]

    def length(row):
        return cmath.sqrt(sum((x - y) ** 2 for x, y in zip(anchor, row, strict=True)))

    losses = [length(rows["positives"][t["positive"]]) - length(rows["negatives"][t["negative"]]) + margin for t in triplets]
    active = [loss for loss in losses if loss.real > 0]
    return sum(active).imag / STEP / len(active) if active else 0.0


def test_triplets_losses_and_gradients_are_those_of_python(node):
    cases = list(drawn_cases())
    expression = """cases.map(({points, strategy, margin}) => {
        const triplets = chooseTriplets(points, strategy, margin);
        return {triplets, loss: lossOf(triplets), gradient: gradientOf(points, triplets)};
    })"""
    without_loss = 0
    for case, found in zip(cases, node(expression, cases), strict=True):
        triplets = list(expected_triplets(**case))
        assert len(found["triplets"]) == len(triplets)
        for ours, theirs in zip(triplets, found["triplets"], strict=True):
            assert theirs == pytest.approx(ours, rel=1e-9, abs=1e-9)
        active = [triplet["loss"] for triplet in triplets if triplet["loss"] > 0]
        without_loss += not active
        assert found["loss"] == pytest.approx(sum(active) / max(len(active), 1), rel=1e-9, abs=1e-9)
        gradient = {**found["gradient"], "anchor": [found["gradient"]["anchor"]]}
        for kind, rows in gradient.items():
            for number, row in enumerate(rows):
                slopes = [expected_slope(case["points"], triplets, case["margin"], kind, number, axis) for axis in (0, 1)]
                assert row == pytest.approx(slopes, rel=1e-9, abs=1e-9), (case, kind, number)
    assert 5 < without_loss < 80


def test_curves_are_those_of_python(node):
    cases = [(gap, margin) for gap in np.linspace(-4, 3, 29).tolist() for margin in (0.0, 0.3, 1.0, 3.0)]
    cases += [(800.0, 1.0), (-800.0, 1.0)]  # where a plain exp is infinite or 0
    expression = "cases.map(([gap, margin]) => [hinge(gap, margin), hingeSlope(gap, margin), softplus(gap), softplusSlope(gap)])"
    for (gap, margin), found in zip(cases, node(expression, cases), strict=True):
        expected = []
        for soft_margin in (False, True):
            arguments = {"soft_margin": soft_margin, "margin": margin}
            expected += [reference.loss_of_triplet(gap, 0, **arguments), reference.slope_of_triplet(gap, 0, **arguments)]
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9), (gap, margin)


def test_kinds_at_their_borders(node):
    """The farthest positive 2 away, margin 1: up to 2 it is hard, below 3 semi-hard."""
    cases = [0, 1.9, 2, 2.1, 2.9, 3, 3.1]
    kinds = ["hard"] * 3 + ["semi-hard"] * 2 + ["easy"] * 2
    assert node("cases.map((toNegative) => kindOfNegative(2, toNegative, 1))", cases) == kinds


def test_points_on_the_anchor_and_ties(node):
    """A distance of 0 has no direction; of equal distances the first is taken."""
    points = {"anchor": [0, 0], "positives": [[0, 0]], "negatives": [[0, 0], [0, 0]]}
    expression = "cases.map(([points, strategy]) => gradientOf(points, chooseTriplets(points, strategy, 1)))"
    still = {"anchor": [0, 0], "positives": [[0, 0]], "negatives": [[0, 0], [0, 0]]}
    assert node(expression, [(points, strategy) for strategy in STRATEGIES]) == [still] * 4
    # Nor is a negative as far away as the positive beyond it.
    points = {"anchor": [0, 0], "positives": [[0, 1], [1, 0]], "negatives": [[3, 0], [0, 3], [2, 0], [0, 2], [0, -1]]}
    expression = "cases.map(([points, strategy]) => { const [t] = chooseTriplets(points, strategy, 1); return [t.positive, t.negative]; })"
    chosen = node(expression, [(points, strategy) for strategy in STRATEGIES[:3]])
    assert chosen == [[0, 4], [0, 2], [0, 0]]


# The page


def body():
    """What Quarto makes of the cells that matter: outputs within the cell's element, raw HTML as it is."""
    for cell in CELLS:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield from (line for line in source.splitlines() if MODULE.name in line)
        for output in cell.get("outputs", []):
            data = {kind: "".join(text) for kind, text in output.get("data", {}).items()}
            shown = data.get("text/markdown") or f'<img alt="" width="100%" src="data:image/png;base64,{data.get("image/png", "").strip()}">'
            if "text/markdown" in data or "image/png" in data:
                yield f'<div class="cell"><div class="cell-output cell-output-display">{shown}</div></div>'


@pytest.fixture(scope="module")
def page_site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    style = "body { margin: 16px; color: #343a40; } body.quarto-dark { background: #222; color: #dee2e6; }"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{style}</style>'
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><head>{head}</head><body>{''.join(body())}</body></html>", encoding="utf-8")
    (folder / MODULE.name).write_bytes(MODULE.read_bytes())
    return Site(folder, "https://figures.example/")


@pytest.fixture(params=[(width, theme) for width in WIDTHS for theme in THEMES], ids=lambda param: f"{param[0]}-{param[1]}")
def page(request, browser, page_site):
    """The page, in each width and theme; at the end there must have been no error."""
    width, theme = request.param
    with new_context(browser, page_site) as context:
        opened = visit(context, page_site, "index.html")
        opened.page.set_viewport_size({"width": width, "height": 900})
        opened.page.evaluate("theme => { document.body.className = `quarto-${theme}`; }", theme)
        opened.page.wait_for_function("document.querySelectorAll('.moving-figure svg[height]').length === 6")
        yield opened.page
        assert not opened.errors, opened.errors


def figure(page, name):
    return page.locator(f"[data-figure={name}]")


def loss(page):
    """Numbers of the chosen positive and negative, and the loss that the figure says."""
    said = re.fullmatch(r"Positive (\d) and negative (\d), .* = (\d\.\d\d)", figure(page, "negatives").locator(".numbers").inner_text())
    return int(said[1]), int(said[2]), float(said[3])


def point(page, name):
    return page.locator(f"[data-point='{name}']")


def unit(page):
    """Pixels for a unit of the plane."""
    return figure(page, "negatives").locator("svg").bounding_box()["width"] / PLANE


def middle(page, name):
    box = point(page, name).locator(".hit").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page, name, right, up):
    """With the mouse, by so many units."""
    x, y = middle(page, name)
    page.mouse.move(x + 3, y - 2)  # seized beside its middle
    page.mouse.down()
    page.mouse.move(x, y, steps=3)
    page.mouse.move(x + 3 + right * unit(page), y - 2 - up * unit(page), steps=5)
    page.mouse.up()


def test_a_point_is_dragged(page):
    """Negative 4, from (-3.6, 1.5) to (-1.8, 1.2): 2.16 away, the nearest beyond the positive, which is 2 away."""
    figure(page, "negatives").scroll_into_view_if_needed()
    assert loss(page) == (2, 2, 0.5)
    drag(page, "negative 4", 1.8, -0.3)
    positive, negative, value = loss(page)
    assert (positive, negative) == (2, 4)
    assert value == pytest.approx(3 - math.hypot(1.8, 1.2), abs=0.03)
    assert "semi-hard, at -1.8, 1.2" in point(page, "negative 4").get_attribute("aria-label")
    page.get_by_role("button", name="Start again").click()
    assert loss(page) == (2, 2, 0.5)


def test_a_finger_drags_a_point(page):
    figure(page, "negatives").scroll_into_view_if_needed()
    touch = page.context.new_cdp_session(page)
    (x, y), scrolled = middle(page, "positive 1"), page.evaluate("scrollY")
    for kind, way in (("touchStart", 0), *(("touchMove", part / 5) for part in range(1, 6))):
        at = {"x": x + 1.5 * way * unit(page), "y": y - 1.0 * way * unit(page)}  # from (0.9, 1.2) to (2.4, 2.2)
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [at]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    positive, negative, value = loss(page)
    assert (positive, negative) == (1, 4)  # 3.26 away, and 3.9 the nearest beyond
    assert value == pytest.approx(math.hypot(2.4, 2.2) - 3.9 + 1, abs=0.03)
    assert page.evaluate("scrollY") == scrolled


def test_keys_move_a_point(page):
    """Negative 2, from (-1.5, 2) up to (-1.5, 2.5): 2.92 away, so that negative 3, at 2.83, is the nearest beyond."""
    page.evaluate("addEventListener('keydown', event => { window.scrolls = !event.defaultPrevented; })")
    point(page, "negative 2").focus()
    for _ in range(5):
        page.keyboard.press("ArrowUp")
    assert loss(page) == (2, 3, 0.17) and not page.evaluate("window.scrolls")
    assert "at -1.5, 2.5" in point(page, "negative 2").get_attribute("aria-label")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert loss(page) == (2, 2, 0.5)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.point") == "negative 3"
    ring = point(page, "negative 3").locator(".focus")
    assert ring.evaluate("ring => getComputedStyle(ring).stroke") == page.evaluate("getComputedStyle(document.body).color")


def test_a_point_stays_within_the_plane(page):
    drag(page, "negative 5", 20, 20)
    assert "at 4.4, 3.6" in point(page, "negative 5").get_attribute("aria-label")
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_the_margin_widens_the_ring_and_the_loss(page):
    place = figure(page, "negatives")
    for margin, expected in (("2", 1.5), ("0.2", 0.0), ("0", 0.0), ("1", 0.5)):
        place.get_by_label("Margin").fill(margin)
        assert loss(page)[2] == expected
        radius = float(place.locator(".outer").get_attribute("r")) / unit(page)
        assert radius == pytest.approx(2 + float(margin), abs=1e-6)
        # Where there is no loss, nothing moves.
        assert place.locator(".arrow").count() == (3 if expected else 0)


def test_strategies(page):
    place = figure(page, "negatives")
    for strategy, expected in (("hard", (2, 1, 1.7)), ("easy", (2, 5, 0.0)), ("semi-hard", (2, 2, 0.5))):
        place.get_by_label(strategy, exact=True).check()
        assert loss(page) == expected
    place.get_by_label("all", exact=True).check()
    # The positives are 1.5 and 2 away, the negatives 1.3, 2.5, 2.83, 3.9 and 4: losses 1.2, 1.7, 0.5 and 0.17.
    assert place.locator(".numbers").inner_text() == "10 triplets, 4 of them with a loss above 0; the mean of those is 0.89"


def test_arrows_point_downhill(page):
    """The positive to the anchor, the negative away from it: tips are nearer to the anchor, and farther from it."""
    tips = figure(page, "negatives").locator(".arrow line").evaluate_all("lines => lines.map(l => ['x1', 'y1', 'x2', 'y2'].map(k => +l.getAttribute(k)))")
    (anchor_x, anchor_y, *_), positive, negative = np.array(tips) / unit(page)
    distances = [[math.hypot(x - anchor_x, y - anchor_y) for x, y in (arrow[:2], arrow[2:])] for arrow in (positive, negative)]
    np.testing.assert_allclose(distances, [[2, 1.2], [2.5, 3.3]], rtol=1e-6)


def test_curves_follow_their_sliders(page):
    place = figure(page, "losses")
    numbers, hinge = place.locator(".numbers"), place.locator(".hinge")
    assert numbers.inner_text() == "At a difference of −0.5: hinge 0.50, slope 1; soft margin 0.47, slope 0.38"
    before = hinge.get_attribute("d"), place.locator(".softplus").get_attribute("d")
    place.get_by_label("Margin").fill("0.3")
    assert numbers.inner_text() == "At a difference of −0.5: hinge 0.00, slope 0; soft margin 0.47, slope 0.38"
    assert hinge.get_attribute("d") != before[0] and place.locator(".softplus").get_attribute("d") == before[1]
    place.get_by_label("Difference", exact=True).focus()
    page.keyboard.press("End")
    assert numbers.inner_text() == "At a difference of 3.0: hinge 3.30, slope 1; soft margin 3.05, slope 0.95"


def spread(page, run):
    """How far the dots of a training lie apart, in parts of the picture's width."""
    places = figure(page, "trainings").locator(f"[data-run={run}] .glides").evaluate_all(
        "dots => dots.map(dot => { const {x, y} = dot.getBoundingClientRect(); return [x, y]; })"
    )
    return np.std(places, axis=0).max() / figure(page, "trainings").locator("svg").first.bounding_box()["width"]


def test_trainings_show_the_epoch(page):
    """Loss, active share and recall are those that the notebook stores; one training parts the dots, the other unites them."""
    place = figure(page, "trainings")
    values = json.loads(place.get_attribute("data-values"))
    assert spread(page, "hard") == pytest.approx(spread(page, "semi-hard"))  # the same start
    for epoch in (15, 3, 0):
        place.get_by_label("Epoch").fill(str(epoch))
        for name, run in values["runs"].items():
            said = place.locator(f"[data-run={name}] dd").all_inner_texts()
            share, recall = (f"{math.floor(100 * run[key][epoch] + 0.5)}%" for key in ("active_share", "recall"))
            assert said == [f"{run['loss'][epoch]:.2f}", share, recall]
        if epoch == 15:
            assert spread(page, "hard") < 0.05 < 0.2 < spread(page, "semi-hard")


def test_trainings_play_and_stop(page):
    place = figure(page, "trainings")
    epoch = place.get_by_label("Epoch")
    epoch.fill("13")
    place.get_by_role("button", name="Play").click()
    page.wait_for_function("document.querySelector('[data-figure=trainings] input').value === '15'")
    place.get_by_role("button", name="Play").click()  # from the start again
    assert epoch.input_value() == "0"
    place.get_by_role("button", name="Stop").click()
    assert place.get_by_role("button", name="Play").is_visible()


def test_motion_only_where_it_is_welcome(page):
    seconds = "getComputedStyle(document.querySelector('.glides')).transitionDuration"
    assert page.evaluate(seconds) == "0s"
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(seconds) == "0.3s"


def luminance(color):
    """Of a color as "rgb(...)" or "#rrggbb", as WCAG 2 has it."""
    parts = re.findall(r"\d+", color)[:3] if color.startswith("rgb") else [int(color[k : k + 2], 16) for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (int(part) / 255 for part in parts)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_readable_in_this_theme(page):
    """Letters have the color of the text; points and curves differ from the ground by the ratio of 3 that WCAG 2 asks of graphics."""
    colors = page.locator("svg text").evaluate_all("texts => [...new Set(texts.map(text => getComputedStyle(text).fill))]")
    assert colors == [page.evaluate("getComputedStyle(document.body).color")]
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    ground = luminance("rgb(255, 255, 255)" if ground == "rgba(0, 0, 0, 0)" else ground)
    drawn = page.locator(".point [fill^='#'], path[stroke^='#'], .glides").evaluate_all(
        "shapes => [...new Set(shapes.map(shape => shape.getAttribute(shape.hasAttribute('stroke') ? 'stroke' : 'fill')))]"
    )
    assert len(drawn) == 5
    for color in drawn:
        dark, light = sorted((ground, luminance(color)))
        assert (light + 0.05) / (dark + 0.05) >= 3, color


def test_fits_the_window(page):
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    sizes = page.locator("svg text").evaluate_all("texts => texts.map(text => text.getBoundingClientRect().height)")
    assert min(sizes) >= 14  # pixels, on a phone too


def test_the_static_figures_make_way(page):
    assert page.locator("img").count() == 3 and page.locator("img:visible").count() == 0
    assert page.locator(".moving-figure:visible").count() == 3


def test_without_javascript_the_static_figures_stand(browser, page_site):
    with new_context(browser, page_site, java_script_enabled=False) as context:
        page = visit(context, page_site, "index.html").page
        assert page.locator("img:visible").count() == 3
        assert page.locator("[data-figure]").all_inner_texts() == [""] * 3
