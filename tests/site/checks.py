"""What is asked of the rendered site. Each check takes a visit and raises where the page does not hold to it.

The names of classes are those that Quarto 1.4 to 1.10 writes. Checks of a page run on each one, checks of the site
on a visit to its home page, from where they go on.
"""

import re
from pathlib import PurePosixPath

import pytest
from serving import DESKTOP

NAVBAR = ("Tutorials", "How it works", "Reference", "Coming from...")
SIDEBAR_LINKS = "#quarto-sidebar a.sidebar-link[href]"
PHONE = {"width": 390, "height": 844}
SMALL_DESKTOP = {"width": 1280, "height": 800}
WEIGHT = 1_500_000  # bytes
TUTORIAL = re.compile(r"tutorials/|demo\.html$")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|work|tmp|root)/[\w./-]+")
CONTRAST = 4.5  # WCAG 2, level AA


def hrefs(page, selector="a[href]"):
    """Where links lead, as whole addresses."""
    return page.eval_on_selector_all(selector, "links => links.map(link => link.href)")


def follow(page, link):
    """Click on a link; the status of the page it leads to."""
    with page.expect_navigation() as navigation:
        link.click()
    return navigation.value.status


# Each page


def check_loads(visit):
    assert visit.status == 200, f"status {visit.status}"


def check_images(visit):
    """Loaded, if they are ours, and told in words."""
    # Lazy ones are not loaded before somebody scrolls to them.
    load = "async image => { image.loading = 'eager'; await image.decode().catch(() => {}); return image.naturalWidth; }"
    for image in visit.page.locator("img").all():
        source = image.evaluate("image => image.src")
        ours = source.startswith((visit.site.origin, "data:"))
        assert not ours or image.evaluate(load), f"{source[:100]} does not load"
        assert (image.get_attribute("alt") or "").strip(), f"{source[:100]} has no alt text"


def check_title_and_description(visit):
    assert visit.page.title().strip(), "no title"
    description = visit.page.locator("meta[name=description]")
    assert description.count() == 1 and description.get_attribute("content").strip(), "no description"


def check_one_heading(visit):
    headings = visit.page.locator("h1").all_inner_texts()
    assert len(headings) == 1 and headings[0].strip(), f"not one h1 but {headings}"


def check_bars(visit):
    assert visit.page.locator("#quarto-header .navbar").is_visible(), "no navbar"
    assert visit.page.locator(SIDEBAR_LINKS).first.is_visible(), "no sidebar"


def check_fits_a_phone(visit):
    """Nothing but a block that scrolls in itself is wider than the window."""
    visit.page.set_viewport_size(PHONE)
    excess, outside = visit.page.evaluate(
        """() => {
            const scrolls = (element) => element !== document.body
                && (getComputedStyle(element).overflowX !== "visible" || scrolls(element.parentElement));
            const {scrollWidth, clientWidth} = document.documentElement;
            const outside = [...document.querySelectorAll("body *")]
                .filter((element) => element.getBoundingClientRect().right > clientWidth && !scrolls(element));
            return [scrollWidth - clientWidth, outside.map((element) => element.outerHTML.slice(0, 100))];
        }"""
    )
    visit.page.set_viewport_size(DESKTOP)
    assert excess <= 0, f"{excess} pixels wider than a phone: {outside}"


def check_pictures_fit(visit):
    """None is wider than its column, nor than the window, on a desktop and on a phone."""
    for size in (DESKTOP, PHONE):
        visit.page.set_viewport_size(size)
        wide = visit.page.locator("main img:not(table *)").evaluate_all(
            """images => images.filter((image) => image.checkVisibility()).filter((image) => {
                const {left, right, width} = image.getBoundingClientRect();
                const column = image.closest("p, figure, div, main").parentElement.clientWidth;
                return left < 0 || right > document.documentElement.clientWidth || width > column;
            }).map((image) => image.src.slice(-100))"""
        )
        visit.page.set_viewport_size(DESKTOP)
        assert not wide, f"wider than {size['width']} pixels allow: {wide}"


def check_code_fits(visit):
    """On the home page and in tutorials no code scrolls sideways on a small desktop, but for what is folded."""
    name = visit.site.name(visit.page.url)
    if name != "index.html" and not TUTORIAL.match(name):
        return
    visit.page.set_viewport_size(SMALL_DESKTOP)
    cut = visit.page.locator("main pre.sourceCode").evaluate_all(
        """blocks => blocks.filter((block) => block.checkVisibility())
            .filter((block) => [block, block.parentElement].some((box) => box.scrollWidth > box.clientWidth))
            .map((block) => block.innerText.split("\\n").sort((a, b) => b.length - a.length)[0])"""
    )
    visit.page.set_viewport_size(DESKTOP)
    assert not cut, "these lines do not fit:\n" + "\n".join(cut)


def check_outputs_fit(visit):
    """What a cell printed, and tables, are not cut on a small desktop; 32 pixels are the room between the columns."""
    visit.page.set_viewport_size(SMALL_DESKTOP)
    cut = visit.page.locator("main :is(.cell-output pre, table)").evaluate_all(
        """(outputs) => {
            const right = document.querySelector("main").getBoundingClientRect().right + 32;
            return outputs.filter((output) => output.checkVisibility())
                .filter((output) => output.scrollWidth > output.clientWidth + 2 || output.getBoundingClientRect().right > right)
                .map((output) => output.innerText.slice(0, 60));
        }"""
    )
    visit.page.set_viewport_size(DESKTOP)
    assert not cut, f"wider than their column: {cut}"


def check_names_are_whole(visit):
    """No name in the first column or the head of a table is broken (a call may be, at its blanks), be the window as narrow as a phone's."""
    visit.page.set_viewport_size(PHONE)
    broken = visit.page.locator("main :is(td:first-child, th) code").evaluate_all(
        "names => names.filter((name) => /^[\\w.]+$/.test(name.innerText) && name.getClientRects().length > 1).map((name) => name.innerText)"
    )
    visit.page.set_viewport_size(DESKTOP)
    assert not broken, f"broken names: {broken}"


def check_folds_are_closed(visit):
    """Sources, tests and drawings are opened by whoever wants to read them."""
    opened = visit.page.locator("details.code-fold[open] > summary").all_inner_texts()
    assert not opened, f"open: {opened}"


def check_own_host(visit):
    """Letters, scripts and pictures come with the site: no other host is asked, nor learns who reads."""
    foreign = [address for address in visit.requests if not address.startswith((visit.site.origin, "data:", "blob:"))]
    assert not foreign, foreign


def check_weight(visit):
    """Of a page with its pictures, uncompressed, without what Quarto brings to each."""
    pictures = visit.page.locator("main img").evaluate_all("images => images.map((image) => image.src)")
    names = {visit.site.name(address) for address in [visit.page.url, *pictures]} - {None}
    sizes = {name: (visit.site.folder / name).stat().st_size for name in names}
    heaviest = sorted(sizes, key=sizes.get, reverse=True)[:3]
    assert sum(sizes.values()) <= WEIGHT, f"{sum(sizes.values()):,} bytes, most of them in {heaviest}"


def check_equations(visit):
    """No TeX is left as it was typed: each formula is one that the browser sets by itself."""
    prose = visit.page.locator("body").evaluate(
        """(body) => {
            const copy = body.cloneNode(true);
            copy.querySelectorAll("pre, code, script, style, math, .math").forEach((element) => element.remove());
            return copy.textContent;
        }"""
    )
    raw = re.findall(r"\$\$.*|\$[^$\n]*[\\_^][^$\n]*\$", prose)
    assert not raw, f"raw TeX: {raw}"
    unset = visit.page.locator("span.math").all_inner_texts()
    assert not unset, f"not typeset: {unset}"


def check_copy_buttons(visit):
    blocks, buttons = (visit.page.locator(selector).count() for selector in ("pre.sourceCode", ".code-copy-button"))
    assert buttons >= blocks, f"{blocks} blocks of code, {buttons} buttons to copy them"


def check_links(visit):
    """Links into the site lead to a page that is there, and to a place on it that is there."""
    faults = {visit.site.fault_of(address) for address in hrefs(visit.page)} - {None}
    assert not faults, sorted(faults)


def check_no_leftovers(visit):
    """Neither nbdev's directives nor folders of the machine that rendered the page."""
    directives = re.findall(r"^\s*#\| ?\w.*", visit.page.locator("body").inner_text(), re.M)
    assert not directives, directives
    paths = MACHINE_PATH.findall(visit.page.content())
    assert not paths, paths


# Paints the backgrounds behind an element onto one pixel, then the letters, so that the canvas mixes what is
# translucent and reads every notation of a color. Colors of highlighted code are Quarto's choice.
LEAST_CONTRAST = """() => {
    const pixel = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
    const paint = (color) => { pixel.fillStyle = color; pixel.fillRect(0, 0, 1, 1); };
    const luminance = () => {
        const [r, g, b] = [...pixel.getImageData(0, 0, 1, 1).data].map((value) => value / 255)
            .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        if (!element) return paint("white");
        behind(element.parentElement);
        paint(getComputedStyle(element).backgroundColor);
    };
    const contrast = (element) => {
        behind(element);
        const ground = luminance();
        paint(getComputedStyle(element).color);
        const [dark, light] = [ground, luminance()].sort((a, b) => a - b);
        return (light + 0.05) / (dark + 0.05);
    };
    const read = "main :is(h1, h2, h3, p, li, td, th, a, summary, button, textarea, code:not(pre *)), .breadcrumb-item, .nav-page-text, .navbar .nav-link, a.sidebar-link";
    const texts = [...document.querySelectorAll(read)].filter((element) => (element.innerText || element.value) && element.checkVisibility());
    const [least, text] = texts.map((element) => [contrast(element), element.outerHTML]).sort((a, b) => a[0] - b[0])[0];
    behind(document.body);
    return {ground: luminance(), least, text: text.slice(0, 100)};
}"""


def check_themes(visit):
    """Light at first, dark after a click, readable in both."""
    toggle = visit.page.locator(".quarto-color-scheme-toggle:visible").first
    background = "getComputedStyle(document.body).backgroundColor"
    looks = {}
    for theme in ("light", "dark"):
        looks[theme] = visit.page.evaluate(LEAST_CONTRAST)
        before = visit.page.evaluate(background)
        toggle.click()  # the second click leaves the page as it was
        visit.page.wait_for_function(f"before => {background} !== before", arg=before)
    assert looks["light"]["ground"] > 0.5 > looks["dark"]["ground"], looks
    for theme, look in looks.items():
        assert look["least"] >= CONTRAST, f"{theme}: contrast of only {look['least']:.2f} in {look['text']}"


def check_markdown_copy(visit):
    """A page's text lies beside it: page.html.md from nbdev, page.md or page.llms.md from Quarto alone."""
    page = visit.site.folder / visit.site.name(visit.page.url)
    copies = [page.with_suffix(suffix) for suffix in (".html.md", ".md", ".llms.md")]
    assert any(copy.is_file() and copy.read_text(encoding="utf-8").strip() for copy in copies), f"no {copies[0].name}"


def check_tutorial_links(visit):
    """A tutorial's own notebook can be opened in Colab, and taken home."""
    name = visit.site.name(visit.page.url)
    if not TUTORIAL.match(name):
        return
    notebook = PurePosixPath(name).stem + ".ipynb"
    for label, where in (("Open in Colab", "https://colab.research.google.com/github/"), ("Download", "")):
        links = visit.page.get_by_role("link", name=re.compile(label, re.I))
        addresses = links.evaluate_all("links => links.map(link => link.href)")
        fit = [address for address in addresses if address.startswith(where) and address.endswith(notebook)]
        assert fit, f"no {label!r} that leads to {notebook}, but {addresses}"


def check_no_errors(visit):
    """After the others, so as to see what came late, or with another theme or width."""
    assert not visit.errors, visit.errors


def check_accessible(visit):
    """axe finds nothing serious in what the pages bring themselves."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python").Axe()
    # Contrast is checked above, without the colors of code; browsers bring the focus to what scrolls by themselves.
    rules = {rule: {"enabled": False} for rule in ("color-contrast", "scrollable-region-focusable")}
    found = axe.run(visit.page, context="main", options={"rules": rules, "resultTypes": ["violations"]}).response["violations"]
    serious = {f"{one['id']}: {one['nodes'][0]['html'][:100]}" for one in found if one["impact"] in ("serious", "critical")}
    assert not serious, serious


# The site, from its home page


def check_first_screen(visit):
    """How to install it, and the example from its first line to its last, are seen without scrolling."""
    install = visit.page.locator("main pre").first
    assert "pip install" in install.inner_text(), "the first block does not install"
    for what, block in (("line that installs", install), ("example", visit.page.locator("main pre.python").first)):
        box = block.bounding_box()
        bottom = box["y"] + box["height"]
        assert bottom <= DESKTOP["height"], f"the {what} ends {bottom:.0f} pixels down"


def check_navbar(visit):
    """Each entry leads from home to a page of the site."""
    page, home = visit.page, visit.page.url
    for entry in NAVBAR:
        page.goto(home)
        links = page.locator("#quarto-header .navbar a.nav-link")
        # Pandoc sets three dots as one character.
        texts = [text.strip().replace("…", "...") for text in links.all_inner_texts()]
        assert entry in texts, f"no {entry!r} among {texts}"
        status = follow(page, links.nth(texts.index(entry)))
        assert status == 200, f"{entry!r} leads to status {status}"
        assert visit.site.name(page.url) not in (None, "index.html"), f"{entry!r} leads to {page.url}"


def check_reading_order(visit):
    """The buttons for next and previous lead from home through all pages of the sidebar, in its order."""
    page, name = visit.page, visit.site.name
    order = list(dict.fromkeys(name(address) for address in hrefs(page, SIDEBAR_LINKS)))
    walked = ["index.html"]
    forth, back = (f".page-navigation .nav-page-{way} a" for way in ("next", "previous"))
    while page.locator(forth).count() and len(walked) <= len(order):
        follow(page, page.locator(forth))
        behind = [name(address) for address in hrefs(page, back)]
        assert behind == walked[-1:], f"from {name(page.url)} back to {behind}, not {walked[-1]}"
        walked.append(name(page.url))
    assert walked == order, f"walked {walked}, the sidebar says {order}"


def search(page, words):
    """Go where the first result leads."""
    page.locator("#quarto-search button").first.click()
    page.locator("input.aa-Input").fill(words)
    follow(page, page.locator(".aa-Item a.search-result-link").first)


def check_search(visit, words="semi-hard"):
    search(visit.page, words)
    assert words in visit.page.locator("main").inner_text().lower(), f"{visit.page.url} has no {words!r}"


def check_search_for_a_name(visit, name="TripletLoss"):
    search(visit.page, name)
    place = visit.page.locator(f"main #{name.lower()}")
    assert place.count() == 1, f"the page where {name} stands is not what is found first, but {visit.page.url}"


def check_search_shows_no_tex(visit):
    """An excerpt has a formula's signs, and not what it was typed as."""
    index = (visit.site.folder / "search.json").read_text(encoding="utf-8")
    typed = re.findall(r".{0,40}\\{2}(?:frac|max|min|sum|text|left|lVert|cdot|le|ge)\b", index)
    assert not typed, f"TeX: {typed[:5]}"


def check_not_found(visit):
    """Wherever a wrong address points, the page that says so is whole and leads home."""
    page, address = visit.page, visit.site.base + "no/such/page.html"
    visit.errors.clear()
    status = page.goto(address).status
    assert status == 404, f"status {status}"
    homes = [link for link in hrefs(page, "main a[href]") if visit.site.name(link) == "index.html"]
    assert homes, "404.html has no link home"
    others = [error for error in visit.errors if address not in error]
    assert not others, others


def check_icon_and_card(visit):
    icon = hrefs(visit.page, "link[rel~=icon]")
    card = visit.page.locator("meta[property='og:image']").evaluate_all("cards => cards.map(card => card.content)")
    for what, addresses in (("favicon", icon), ("social card", card)):
        assert len(addresses) == 1, f"no {what}"
        name = visit.site.name(addresses[0])  # None where the address is no whole one, as a card's must be
        assert name and (visit.site.folder / name).is_file(), f"{what}: there is no {addresses[0]}"


def check_site_has_equations(visit):
    """That each is set as one is checked on the pages; here, that any has come through."""
    texts = ((visit.site.folder / name).read_text(encoding="utf-8") for name in visit.site.pages)
    assert any('<math display="block"' in text for text in texts), "no equation on any page"


CHECKS = [check for name, check in globals().items() if name.startswith("check_")]
FIRST_OF_SITE = CHECKS.index(check_first_screen)
PAGE_CHECKS, SITE_CHECKS = CHECKS[:FIRST_OF_SITE], CHECKS[FIRST_OF_SITE:]
