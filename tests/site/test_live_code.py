"""Code on a page that a reader can run: it does what the notebook's cell does, and what goes wrong in it is told.

The notebook's cells stand on a page as Quarto would put them there, next to the JavaScript and MicroPython.
"""

import html
import json
import shutil
from pathlib import Path

import pytest
from serving import Site, new_context, visit

TUTORIALS = Path(__file__).resolve().parents[2] / "nbs" / "tutorials"
CELLS = json.loads((TUTORIALS / "ten_minutes.ipynb").read_text(encoding="utf-8"))["cells"]
LIVE = next(number for number, cell in enumerate(CELLS) if "".join(cell["source"]).startswith("<div data-live>"))

pytestmark = [pytest.mark.every, pytest.mark.xdist_group("site")]


def source(cell):
    return "".join(line for line in cell["source"] if not line.startswith("#|"))


def printed(cell):
    return "".join("".join(output["text"]) for output in cell["outputs"])


@pytest.fixture(scope="module")
def live_site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live") / "site"
    shutil.copytree(TUTORIALS, folder, ignore=shutil.ignore_patterns("*.ipynb"))
    cells = (
        f'<div class="cell"><pre class="sourceCode python"><code>{html.escape(source(cell))}</code></pre>'
        f'<div class="cell-output"><pre>{html.escape(printed(cell))}</pre></div></div>'
        for cell in CELLS[LIVE - 2 : LIVE]
    )
    (folder / "index.html").write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Live</title><main>{"".join(cells)}<div data-live></div></main>'
        '<script type="module" src="live_code.js"></script>',
        encoding="utf-8",
    )
    return Site(folder, "https://live.example/")


@pytest.fixture
def page(browser, live_site):
    with new_context(browser, live_site) as context:
        opened = visit(context, live_site, "index.html")
        yield opened.page
        assert not opened.errors, opened.errors


def code(page):
    return page.get_by_label("Python code")


def output(page):
    return page.locator(".live-code pre")


def run(page, text=None):
    """What the code prints, by the button."""
    if text is not None:
        code(page).fill(text)
    button = page.get_by_role("button", name="Run")
    button.click()
    page.wait_for_function("[...document.querySelectorAll('.live-code button')].every((button) => !button.disabled)", timeout=30_000)
    return output(page).inner_text()


def test_it_starts_as_the_notebook_has_it(page):
    assert code(page).input_value() == source(CELLS[LIVE - 1]).rstrip()
    assert output(page).inner_text() == printed(CELLS[LIVE - 1]).strip()
    assert page.locator(".cell:visible").count() == 1  # the check; the editor stands in the other's place


def test_it_prints_what_the_notebook_prints(page):
    assert run(page) == printed(CELLS[LIVE - 1])


def test_the_solution_is_right(page):
    assert run(page, source(CELLS[LIVE + 1])) == printed(CELLS[LIVE + 1])


def test_each_run_starts_anew(page):
    run(page, "forgotten = 1")
    assert "NameError" in run(page, "print(forgotten)")


def test_what_is_wrong_is_told(page):
    assert "SyntaxError" in run(page, "def negative_of(:")
    assert "ZeroDivisionError" in run(page, "check(lambda distances, labels: 1 / 0)")
    assert "Yours is None" in run(page, "check(lambda distances, labels: None)")


def test_code_without_an_end_is_ended(page):
    page.clock.install()
    code(page).fill("while True: pass")
    page.get_by_role("button", name="Run").click()
    page.clock.run_for(11_000)
    assert output(page).inner_text().strip() == "Ended after 10 seconds."
    assert page.get_by_role("button", name="Run").is_enabled()


def test_start_again(page):
    code(page).fill("print(1)")
    page.get_by_role("button", name="Start again").click()
    assert code(page).input_value() == source(CELLS[LIVE - 1]).rstrip()


def test_the_keyboard_alone(page):
    code(page).fill("")
    code(page).press_sequentially("for k in range(2):")
    code(page).press("Enter")
    code(page).press_sequentially("print(k)")
    code(page).press("Shift+Enter")
    page.wait_for_function("document.querySelector('.live-code pre').textContent === '0\\n1\\n'", timeout=30_000)
    assert code(page).input_value() == "for k in range(2):\n    print(k)"


def test_python_is_loaded_when_it_is_run(browser, live_site):
    with new_context(browser, live_site) as context:
        asked = []
        context.on("request", lambda request: asked.append(request.url))
        page = visit(context, live_site, "index.html").page
        assert not any("micropython" in address for address in asked)
        run(page)
        assert any(address.endswith("micropython.wasm") for address in asked)
        assert all(address.startswith(live_site.base) for address in asked)


def test_without_javascript_the_cell_stands(browser, live_site):
    with new_context(browser, live_site, java_script_enabled=False) as context:
        page = visit(context, live_site, "index.html").page
        assert page.locator(".cell:visible").count() == 2
