"""A rendered site in the browser: under the address that it has on the web, but answered from its folder."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

NOT_FOUND = "404.html"
DESKTOP = {"width": 1440, "height": 900}


@functools.cache
def ids(file):
    """What a fragment can point at in a page."""
    return set(re.findall(r'<[^<>]*\sid="([^"]+)"', file.read_text(encoding="utf-8")))


@dataclass
class Site:
    folder: Path
    base: str  # its address on the web; ends in /

    @property
    def origin(self):
        return urljoin(self.base, "/")

    @property
    def pages(self):
        names = (file.relative_to(self.folder).as_posix() for file in self.folder.rglob("*.html"))
        return sorted(name for name in names if name != NOT_FOUND and not name.startswith("site_libs/"))

    def name(self, address):
        """The file, within the folder, that an address of the site stands for, be it there or not; None elsewhere."""
        address = unquote(re.split("[?#]", address)[0])
        if not address.startswith(self.base):
            return None
        return re.sub("(^|/)$", r"\1index.html", address.removeprefix(self.base))

    def fault_of(self, address):
        """Why a link leads nowhere; None where it leads somewhere, or out of the site."""
        name, fragment = self.name(address), unquote(urldefrag(address).fragment)
        if name is None:
            return f"{address} lies outside {self.base}" if address.startswith(self.origin) else None
        if not (self.folder / name).is_file():
            return f"there is no {name}"
        if fragment and name.endswith(".html") and fragment not in ids(self.folder / name):
            return f"{name} has no #{fragment}"
        return None

    def answer(self, route):
        """As GitHub Pages does: what is not there gets status 404, with the site's own page for it."""
        file, nothing = self.folder / (self.name(route.request.url) or "nothing"), self.folder / NOT_FOUND
        if file.is_file():
            route.fulfill(path=file)
        else:
            route.fulfill(status=404, content_type="text/html", body=nothing.read_bytes() if nothing.is_file() else "none")


@dataclass
class Visit:
    """A page of the site, open in the browser."""

    site: Site
    page: object  # playwright's
    status: int
    errors: list  # of our own: what the pages threw, and what they or the browser reported of the site's files
    requests: list  # addresses of all that was asked for


def new_context(browser, site, **options):
    """A browser as of one who visits the site for the first time."""
    context = browser.new_context(viewport=DESKTOP, color_scheme="light", reduced_motion="reduce", **options)
    context.set_default_navigation_timeout(30_000)  # milliseconds
    context.set_default_timeout(10_000)
    context.route("**", lambda route: route.abort())  # of other hosts nothing is needed
    context.route(site.origin + "**", site.answer)
    return context


def visit(context, site, name):
    page, errors, requests = context.new_page(), [], []

    def note_console(message):
        # What a failed request reports bears the address of what was requested: a foreign one is no error of ours.
        source = message.location["url"]
        if message.type == "error" and (not source or source.startswith(site.origin)):
            errors.append(f"{message.text} ({source})")

    page.on("console", note_console)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    return Visit(site, page, page.goto(site.base + name).status, errors, requests)
