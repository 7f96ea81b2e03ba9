import importlib.util
import os
import shutil
from pathlib import Path

import pytest
from serving import new_context

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
# What the tests that use a fixture lack here.
MISSING = {
    "browser": (not importlib.util.find_spec("playwright") and "playwright, which drives the browser: pip install playwright")
    or (not CHROMIUM and "Chromium, which shows the pages: apt-get install chromium, or CHROMIUM=its program"),
    "rendered": not (os.environ.get("SITE") or shutil.which("quarto"))
    and "Quarto, which renders the site: https://quarto.org/docs/get-started",
    "node": not shutil.which("node") and "Node.js, which runs the figures' JavaScript: apt-get install nodejs",
}  # fmt: skip


def pytest_collection_modifyitems(items):
    """Where a program is missing, the first of the tests that need it says so for all of them."""
    for fixture, missing in MISSING.items():
        here = (item for item in items if item.path.parent == Path(__file__).parent)
        first, *others = [item for item in here if fixture in item.fixturenames] or [None]
        if missing and first:
            first.add_marker(pytest.mark.skip(reason=f"{1 + len(others)} tests need {missing}"))
            items[:] = [item for item in items if item not in others]


@pytest.fixture(scope="module")  # no longer: its event loop is in the way of other tests in the process
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM)  # without a sandbox, so root may, too
        yield browser
        browser.close()


@pytest.fixture
def context(browser, site):
    """A browser's window, in which nothing of the site was seen before."""
    with new_context(browser, site) as context:
        yield context
