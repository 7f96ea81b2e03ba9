import os
import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")  # no longer: its event loop is in the way of other tests in the process
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright drives the browser and is not installed: pip install playwright"
    )
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not program:
        pytest.skip("Chromium shows the pages and is not on the PATH: apt-get install chromium, or CHROMIUM=its program")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program)  # without a sandbox, so root may, too
        yield browser
        browser.close()
