"""A rendered site: its folder, served on this machine under the path that it has on the web, and visits to its pages."""

import functools
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

NOT_FOUND = "404.html"


class Ids(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = set()

    def handle_starttag(self, tag, attributes):
        self.found.update(value for name, value in attributes if name == "id")


@functools.cache
def ids(file):
    """What a fragment can point at in a page."""
    parser = Ids()
    parser.feed(file.read_text(encoding="utf-8"))
    return parser.found


@dataclass
class Site:
    folder: Path
    origin: str  # of the server on this machine
    public: str  # the address on the web, which the pages write into links and metadata; ends in /

    @property
    def base(self):
        return self.origin + urlsplit(self.public).path

    @property
    def pages(self):
        names = (file.relative_to(self.folder).as_posix() for file in self.folder.rglob("*.html"))
        return sorted(name for name in names if name != NOT_FOUND and not name.startswith("site_libs/"))

    def name(self, address):
        """The file, within the folder, that an address of the site stands for, be it there or not; None elsewhere."""
        address = unquote(re.split("[?#]", address)[0])
        for base in (self.base, self.public):
            if address.startswith(base):
                rest = address.removeprefix(base)
                return rest + "index.html" if not rest or rest.endswith("/") else rest
        return None

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


class Handler(SimpleHTTPRequestHandler):
    """Serves a site as GitHub Pages does: below its base path, and with its own page for what is not there."""

    def __init__(self, *arguments, site_path, **options):
        self.site_path = site_path
        super().__init__(*arguments, **options)

    def translate_path(self, path):
        below = path.removeprefix(self.site_path) if path.startswith(self.site_path) else "outside/" + path
        return super().translate_path("/" + below)

    def send_error(self, code, message=None, explain=None):
        page = Path(self.directory, NOT_FOUND)
        if code != 404 or not page.is_file():
            return super().send_error(code, message, explain)
        self.send_response(404)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page.read_bytes())

    def log_message(self, *_):
        pass


@contextmanager
def served(folder, public):
    handler = functools.partial(Handler, site_path=urlsplit(public).path, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Site(folder, f"http://127.0.0.1:{server.server_port}", public)
        server.shutdown()


@dataclass
class Visit:
    """A page of the site, open in the browser."""

    site: Site
    page: object  # playwright's
    status: int
    errors: list  # of our own: what the pages threw, and what they or the server of the site reported


DESKTOP = {"width": 1440, "height": 900}


def new_context(browser, site, patience=10, web=False):
    """A browser as of one who visits the site for the first time; it waits `patience` seconds for what should come."""
    context = browser.new_context(viewport=DESKTOP, color_scheme="light", reduced_motion="reduce")
    context.set_default_navigation_timeout(30_000)
    context.set_default_timeout(1000 * patience)
    if not web:  # cut off at once rather than waited for, page by page
        context.route(re.compile(r"^https?://(?!127\.0\.0\.1)"), lambda route: route.abort())

    def stay_here(route):
        address = site.base + route.request.url.removeprefix(site.public)
        route.fulfill(status=302, headers={"Location": address})

    context.route(site.public + "**", stay_here)
    return context


def visit(context, site, name):
    page, errors = context.new_page(), []

    def note_console(message):
        # What a failed request reports bears the address of what was requested: a foreign one is no error of ours.
        source = message.location["url"]
        if message.type == "error" and (not source or source.startswith(site.origin)):
            errors.append(f"{message.text} ({source})")

    page.on("console", note_console)
    page.on("pageerror", lambda error: errors.append(str(error)))
    response = page.goto(site.base + name)
    return Visit(site, page, response.status, errors)
