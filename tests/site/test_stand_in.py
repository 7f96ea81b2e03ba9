"""The checks pass on a site that is made as they ask, and each one fails where it ought to."""

import re

import checks
import pytest
import stand_in
from serving import Site, visit

COMING, END = stand_in.COMING, '<nav class="page-navigation">'

# A check, a file, a text in it, by what to replace it, and what the check then complains of. Instead of a text, END adds
# something below a page, and None takes the file away.
BREAKS = [
    (checks.check_loads, "mining.html", None, "", "status 404"),
    (checks.check_no_errors, "mining.html", END, "<script>missing()</script>", "missing is not defined"),
    (checks.check_no_errors, "mining.html", END, "<script>console.error('oh')</script>", "oh"),
    (checks.check_no_errors, "mining.html", END, "<script src='gone.js'></script>", "404.*gone.js"),
    (checks.check_images, "index.html", "demo.svg", "gone.svg", "gone.svg does not load"),
    (checks.check_images, "index.html", 'alt="Three points and a margin around one of them"', "", "no alt text"),
    (checks.check_pictures_fit, "site_libs/light.css", "img { max-width: 100%; }", "", "wider than 390 pixels allow.*demo.svg"),
    (checks.check_code_fits, "site_libs/light.css", "font-size: .6em", "", "do not fit:.*loss = tl.TripletLoss"),
    (checks.check_outputs_fit, "mining.html", END, "<table><tr><td style='min-width: 1500px'>wide</td></tr></table>", "wider than their column.*wide"),
    (checks.check_outputs_fit, "mining.html", END, "<div class='cell-output'><pre>" + "long " * 500 + "</pre></div>", "wider than their column.*long"),
    (checks.check_names_are_whole, "reference.html", "<code>margin", "<code style='overflow-wrap: anywhere'>" + 9 * "a_margin_", "broken names.*a_margin"),
    (checks.check_folds_are_closed, "mining.html", "<details", "<details open", "open.*Source"),
    (checks.check_own_host, "mining.html", END, "<script src='https://cdn.example/x.js'></script>", "cdn.example/x.js"),
    (checks.check_weight, "images/demo.svg", "<circle", "<!--" + "x" * checks.WEIGHT + "--><circle", "bytes, most of them in .'images/demo.svg'"),
    (checks.check_title_and_description, "mining.html", "<title>Mining – package", "<title>", "no title"),
    (checks.check_title_and_description, "mining.html", 'meta name="description"', "meta", "no description"),
    (checks.check_title_and_description, "mining.html", 'content="Which example is whose negative"', 'content=""', "no description"),
    (checks.check_one_heading, "mining.html", END, "<h1>Another</h1>", "Mining.*Another"),
    (checks.check_one_heading, "mining.html", '<h1 class="title">Mining</h1>', "", "not one h1"),
    (checks.check_bars, "mining.html", "navbar navbar-expand-lg", "", "no navbar"),
    (checks.check_bars, "mining.html", "sidebar-link", "", "no sidebar"),
    (checks.check_fits_a_phone, "mining.html", END, "<p style='width: 600px'>wide</p>", "pixels wider.*wide"),
    (checks.check_equations, "mining.html", END, "<p>$$d_p$$</p>", r"raw TeX.*\$\$d_p\$\$"),
    (checks.check_equations, "mining.html", END, "<p>as $x_i$ is</p>", "raw TeX"),
    (checks.check_equations, "mining.html", END, r"<span class='math inline'>\(m\)</span>", "not typeset"),
    (checks.check_copy_buttons, "index.html", "code-copy-button", "", "1 blocks of code, 0 buttons"),
    (checks.check_links, "index.html", "./mining.html#semi-hard", "./gone.html", "there is no gone.html"),
    (checks.check_links, "index.html", "mining.html#semi-hard", "mining.html#gone", "mining.html has no #gone"),
    (checks.check_links, "index.html", "./mining.html#semi-hard", "/mining.html", "mining.html lies outside"),
    (checks.check_links, "index.html", "reference.html#tripletloss", "reference.html#gone", "reference.html has no #gone"),
    (checks.check_no_leftovers, "index.html", "loss <span", "#| export\nloss <span", r"#\| export"),
    (checks.check_no_leftovers, "mining.html", END, "<p>read from /home/me/x</p>", "/home/me/x"),
    (checks.check_no_leftovers, "mining.html", END, "<a href='file:///tmp/x.png'>x</a>", "/tmp/x.png"),
    (checks.check_themes, "site_libs/quarto.js", "quartoToggleColorScheme", "other", "Timeout"),
    (checks.check_themes, "site_libs/dark.css", "#222", "#fff", "Timeout"),
    (checks.check_themes, "site_libs/dark.css", "#222", "#ffffe0", "ground"),
    (checks.check_themes, "site_libs/dark.css", "#dee2e6", "#555", "dark: contrast of only 2"),
    (checks.check_themes, "site_libs/light.css", "color: #fff", "color: #888", "light: contrast of only"),
    (checks.check_themes, "mining.html", "<summary", "<summary style='color: #888'", "light: contrast of only 3.*summary"),
    (checks.check_accessible, "mining.html", END, "<img src='images/demo.svg'>", "image-alt"),
    (checks.check_markdown_copy, "mining.html.md", None, "", "no mining.html.md"),
    (checks.check_tutorial_links, COMING, "Open in Colab", "here", "no 'Open in Colab'"),
    (checks.check_tutorial_links, COMING, "main/nbs/tutorials/coming", "main/nbs/tutorials/not_coming.ipynb?", "no 'Open in Colab'"),
    (checks.check_tutorial_links, COMING, "Download the notebook", "here", "no 'Download'"),
    (checks.check_first_screen, "index.html", "pip install", "conda install", "does not install"),
    (checks.check_first_screen, "index.html", "<pre><code>pip", "<pre style='height: 900px'><code>pip", "line that installs ends"),
    (checks.check_first_screen, "index.html", '<pre class="sourceCode', '<pre style="height: 900px" class="sourceCode', "example ends"),
    (checks.check_navbar, "index.html", ">How it works<", ">How<", "no 'How it works'"),
    (checks.check_navbar, "index.html", 'nav-link" href="./demo.html"', 'nav-link" href="./gone.html"', "status 404"),
    (checks.check_navbar, "index.html", 'nav-link" href="./demo.html"', 'nav-link" href="./?"', "'Tutorials' leads to"),
    (checks.check_reading_order, "demo.html", "nav-page-next", "", "walked.*the sidebar says"),
    (checks.check_reading_order, "demo.html", '"./mining.html" class="pagination', '"./reference.html" class="pagination', "back to"),
    (checks.check_reading_order, "mining.html", "nav-page-previous", "", "back to"),
    (checks.check_search, "index.html", 'id="quarto-search"', "", "Timeout.*quarto-search"),
    (checks.check_search, "search.json", "semi-hard", "hard", "Timeout.*search-result-link"),
    (checks.check_search, "search.json", '"mining.html"', '"demo.html"', "has no 'semi-hard'"),
    (checks.check_search_for_a_name, "search.json", '"reference.html"', '"demo.html"', "where TripletLoss stands is not what"),
    (checks.check_search_shows_no_tex, "search.json", "semi-hard", r"semi-hard \\frac{1}{2}", "TeX.*frac"),
    (checks.check_not_found, "404.html", None, "", "no link home"),
    (checks.check_not_found, "404.html", '"/package/index.html">Start', '"/package/demo.html">Start', "no link home"),
    (checks.check_not_found, "404.html", "/package/site_libs/light.css", "./site_libs/light.css", "light.css"),
    (checks.check_icon_and_card, "index.html", 'rel="icon"', "", "no favicon"),
    (checks.check_icon_and_card, "images/favicon.svg", None, "", "favicon: there is no"),
    (checks.check_icon_and_card, "index.html", 'property="og:image"', "", "no social card"),
    (checks.check_icon_and_card, "index.html", f'"{stand_in.PUBLIC}images/card', '"./images/card', "social card: there is no"),
    (checks.check_icon_and_card, "images/card.svg", None, "", "social card: there is no"),
    (checks.check_site_has_equations, "mining.html", 'display="block"', "", "no equation"),
]  # fmt: skip


def replace(folder, file, old, new):
    path = folder / file
    if old is None:
        path.unlink()
        return
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new + END if old == END else new), encoding="utf-8")


@pytest.fixture
def site(tmp_path):
    return Site(stand_in.write(tmp_path), stand_in.PUBLIC)


@pytest.mark.parametrize("name", stand_in.PAGES)
def test_pages_pass(context, site, name):
    opened = visit(context, site, name)
    for check in checks.PAGE_CHECKS:
        check(opened)


@pytest.mark.parametrize("check", checks.SITE_CHECKS, ids=lambda check: check.__name__)
def test_site_passes(context, site, check):
    check(visit(context, site, "index.html"))


@pytest.mark.every  # tests of tests
@pytest.mark.parametrize(
    ("check", "file", "old", "new", "complaint"),
    [pytest.param(*case, id=f"{case[0].__name__}: {case[-1]}") for case in BREAKS],
)
def test_check_fails(context, site, check, file, old, new, complaint):
    replace(site.folder, file, old, new)
    page = file.removesuffix(".md")
    opened = visit(context, site, page if page in stand_in.PAGES and check in checks.PAGE_CHECKS else "index.html")
    if complaint.startswith("Timeout"):
        context.set_default_timeout(1000)  # milliseconds, for what never comes
    with pytest.raises(Exception) as failure:
        check(opened)
    assert re.search(complaint, str(failure.value), re.S)


def test_every_check_is_seen_to_fail():
    assert {check for check, *_ in BREAKS} == set(checks.CHECKS)


def test_failures_elsewhere_are_no_errors_of_ours(context, site):
    replace(site.folder, "mining.html", END, "<script src='https://cdn.example/x.js'></script>")
    checks.check_no_errors(visit(context, site, "mining.html"))


def test_addresses_on_the_web_lead_to_the_served_site(context, site):
    page = visit(context, site, "index.html").page
    assert checks.follow(page, page.get_by_role("link", name="TripletLoss", exact=True)) == 200
    assert page.url == site.base + "reference.html#tripletloss"
