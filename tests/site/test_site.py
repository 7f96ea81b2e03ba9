"""The rendered site in a browser. `SITE=folder` looks at a site that is rendered already, in place of rendering one."""

import configparser
import os
import re
from pathlib import Path

import pytest
from checkout import copy_of, run_python
from checks import PAGE_CHECKS, SITE_CHECKS
from serving import NOT_FOUND, Site, new_context, visit

ROOT = Path(__file__).resolve().parents[2]
RENDERED = os.environ.get("SITE")

pytestmark = pytest.mark.xdist_group("site")  # rendered once, by one process


def page_of(source):
    """nbdev names a notebook's page in lower case and without the number."""
    name = re.sub(r"^\d+[a-z\d]*_", "", source.name.lower()) if source.suffix == ".ipynb" else source.name
    return source.with_name(name).with_suffix(".html").as_posix()


def pages():
    """Known before anything is rendered, so that each is a test."""
    if RENDERED:
        return Site(Path(RENDERED), "").pages
    notebooks = ROOT / "nbs"
    sources = [path.relative_to(notebooks) for kind in ("ipynb", "qmd") for path in notebooks.rglob(f"*.{kind}")]
    shown = [source for source in sources if not any(part.startswith((".", "_")) for part in source.parts)]
    return sorted({page_of(source) for source in shown} - {NOT_FOUND})


@pytest.fixture(scope="session")
def rendered(root, tmp_path_factory):
    if RENDERED:
        return Path(RENDERED).resolve()
    copy = copy_of(root, tmp_path_factory.mktemp("source") / root.name)
    run_python(["-c", "import nbdev.quarto; nbdev.quarto.nbdev_docs()"], copy)
    return copy / "_docs"


@pytest.fixture(scope="session")
def site(root, rendered):
    settings = configparser.ConfigParser()
    settings.read(root / "settings.ini")
    return Site(rendered, "{doc_host}{doc_baseurl}/".format(**settings["DEFAULT"]))


@pytest.fixture(scope="module")
def opened(request, site, browser):
    """A page, for all of its tests."""
    with new_context(browser, site) as context:
        yield visit(context, site, request.param)


@pytest.mark.parametrize("opened", pages(), indirect=True)
@pytest.mark.parametrize("check", PAGE_CHECKS, ids=lambda check: check.__name__)
def test_page(opened, check):
    check(opened)


@pytest.mark.parametrize("check", SITE_CHECKS, ids=lambda check: check.__name__)
def test_site(context, site, check):
    check(visit(context, site, "index.html"))


def test_each_page_was_looked_at(site):
    assert site.pages == pages()
