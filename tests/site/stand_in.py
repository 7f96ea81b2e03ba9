"""A small site that looks to a test as Quarto's does: the same elements with the same classes, on five pages.

It stands in where there is no Quarto, so that the checks themselves are checked. `write` makes it.
"""

import json
from pathlib import Path
from string import Template

PUBLIC = "https://stand-in.example/package/"
COMING = "tutorials/coming_from_another_library.html"
NAVBAR = {"Tutorials": "demo.html", "How it works": "mining.html", "Reference": "reference.html", "Coming from…": COMING}

CODE = """<div class="sourceCode" id="cb1"><pre class="sourceCode python code-with-copy"><code class="sourceCode python">\
<span id="cb1-1"><span class="im">import</span> tripletloss <span class="im">as</span> tl</span>
<span id="cb1-2">loss <span class="op">=</span> tl.TripletLoss(margin<span class="op">=</span><span class="fl">0.5</span>)\
  <span class="co"># wider than a phone, so this block scrolls, and the page around it does not</span></span>\
</code><button title="Copy to Clipboard" class="code-copy-button"><i class="bi"></i></button></pre></div>"""
FIGURE = """<div class="quarto-figure quarto-figure-center"><figure class="figure">
<p><img src="${root}images/demo.svg" class="img-fluid figure-img" alt="Three points and a margin around one of them"></p>
<figcaption>An anchor, its positive and a negative.</figcaption></figure></div>"""
OWN_NOTEBOOK = """<p><a href="https://colab.research.google.com/github/stand-in/package/blob/main/nbs/$notebook">Open in Colab</a> ·
<a href="https://raw.githubusercontent.com/stand-in/package/main/nbs/$notebook">Download the notebook</a></p>"""

# In reading order: title, description and what is below them.
PAGES = {
    "index.html": (
        "package",
        "A loss, derived in notebooks",
        f"""{FIGURE}{CODE}<p><a href="{PUBLIC}reference.html#triplet-loss"><code>TripletLoss</code></a> mines semi-hard
        negatives, <a href="./mining.html#semi-hard">as derived here</a>.</p>""",
    ),
    "demo.html": (
        "Quickstart",
        "From pictures to neighbours",
        OWN_NOTEBOOK.replace("$notebook", "08_demo.ipynb") + CODE,
    ),
    "mining.html": (
        "Mining",
        "Which example is whose negative",
        r"""<section id="semi-hard" class="level2"><h2 class="anchored" data-anchor-id="semi-hard">The nearest of the others</h2>
        <p>A negative is semi-hard if it is farther away than the positive, by less than the margin
        <span class="math inline">\(m\)</span>:</p><p><span class="math display">\[d_p < d_n < d_p + m\]</span></p>
        </section>""",
    ),
    "reference.html": (
        "Reference",
        "Every name",
        """<section id="triplet-loss" class="level3"><h3 class="anchored">TripletLoss</h3><table class="table"><tbody>
        <tr><td><code>margin</code></td><td>How much farther</td></tr></tbody></table></section>""",
    ),
    COMING: (
        "Coming from another library",
        "What their losses are called here",
        OWN_NOTEBOOK.replace("$notebook", "tutorials/coming_from_another_library.ipynb") + "<p>Their semihard is ours.</p>",
    ),
}
NOT_FOUND = ("No such page", "The address leads nowhere", '<p><a href="${root}index.html">Start at the home page</a></p>')

PAGE = Template("""<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" lang="en" xml:lang="en"><head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1.0, user-scalable=yes">
<meta name="description" content="$description">
<title>$title – package</title>
<meta name="quarto:offset" content="$root">
<link href="${root}images/favicon.svg" rel="icon" type="image/svg+xml">
<link href="${root}site_libs/light.css" rel="stylesheet" class="quarto-color-scheme" id="quarto-bootstrap">
<link href="${root}site_libs/dark.css" rel="stylesheet" class="quarto-color-scheme quarto-color-alternate" disabled>
<meta property="og:image" content="${public}images/card.svg">
</head>
<body class="nav-sidebar floating nav-fixed quarto-light">
<div id="quarto-search-results"></div>
<header id="quarto-header" class="headroom fixed-top">
  <nav class="navbar navbar-expand-lg" data-bs-theme="dark"><div class="navbar-container container-fluid">
    <div class="navbar-brand-container mx-auto">
      <a class="navbar-brand" href="${root}index.html"><span class="navbar-title">package</span></a>
    </div>
    <div id="quarto-search" class="type-overlay" title="Search">
      <button type="button" class="aa-DetachedSearchButton" title="Search">Search</button>
    </div>
    <ul class="navbar-nav navbar-nav-scroll me-auto">$navbar</ul>
    <div class="quarto-navbar-tools">
      <a href="" class="quarto-color-scheme-toggle quarto-navigation-tool" title="Toggle dark mode"
        onclick="window.quartoToggleColorScheme(); return false;"><i class="bi">◐</i></a>
    </div>
  </div></nav>
</header>
<div id="quarto-content" class="quarto-container page-columns page-rows-contents page-layout-article page-navbar">
  <nav id="quarto-sidebar" class="sidebar collapse quarto-sidebar-collapse-item sidebar-navigation floating">
    <div class="sidebar-menu-container"><ul class="list-unstyled mt-1">$sidebar</ul></div>
  </nav>
  <main class="content" id="quarto-document-content">
    <header id="title-block-header" class="quarto-title-block default">
      <div class="quarto-title"><h1 class="title">$title</h1></div>
      <div><div class="description">$description</div></div>
    </header>
    $body
    <nav class="page-navigation">
      <div class="nav-page nav-page-previous">$previous</div>
      <div class="nav-page nav-page-next">$next</div>
    </nav>
  </main>
</div>
<script src="${root}site_libs/quarto.js"></script>
</body></html>
""")
NAVBAR_ITEM = '<li class="nav-item"><a class="nav-link" href="%s"><span class="menu-text">%s</span></a></li>\n'
SIDEBAR_ITEM = """<li class="sidebar-item"><div class="sidebar-item-container">
<a href="%s" class="sidebar-item-text sidebar-link"><span class="menu-text">%s</span></a></div></li>\n"""
NEIGHBOR = '<a href="%s" class="pagination-link"><span class="nav-page-text">%s</span></a>'

LIGHT = """
body { margin: 0; font: 16px/1.5 sans-serif; background: #fff; color: #343a40; }
a { color: #1b5e9e; }
.navbar-container { display: flex; flex-wrap: wrap; gap: 1em; padding: .5em 1em; background: #1b5e9e; }
.navbar a { color: #fff; text-decoration: none; }
.navbar ul { display: flex; flex-wrap: wrap; gap: 1em; margin: 0; padding: 0; list-style: none; }
#quarto-content { display: flex; gap: 2em; padding: 1em; }
#quarto-sidebar ul { padding: 0; list-style: none; }
main { max-width: 760px; min-width: 0; }
img { max-width: 100%; }
pre { position: relative; overflow-x: auto; padding: 1em; background: rgba(127, 127, 127, .1); }
.code-copy-button { position: absolute; top: 0; right: 0; }
.page-navigation { display: flex; justify-content: space-between; }
.aa-DetachedOverlay { position: fixed; inset: 4em 20%; padding: 1em; background: #eee; }
@media (max-width: 991px) { #quarto-sidebar { display: none; } }
"""
DARK = """
body { background: #222; color: #dee2e6; }
a { color: #00bc8c; }
"""
SCRIPT = """
window.quartoToggleColorScheme = () => {
  const dark = document.querySelector("link.quarto-color-alternate");
  dark.disabled = !dark.disabled;
};

document.querySelector("#quarto-search button").onclick = () => {
  const root = document.querySelector("meta[name='quarto:offset']").content;
  const overlay = document.body.appendChild(document.createElement("div"));
  overlay.className = "aa-DetachedOverlay";
  overlay.innerHTML = '<input class="aa-Input" type="search"><ul class="aa-List"></ul>';
  overlay.querySelector("input").oninput = async (event) => {
    const words = event.target.value.toLowerCase();
    const entries = await (await fetch(root + "search.json")).json();
    overlay.querySelector("ul").innerHTML = entries.filter((entry) => entry.text.toLowerCase().includes(words)).map(
      (entry) => `<li class="aa-Item"><a class="search-result-link" href="${root + entry.href}">${entry.title}</a></li>`
    ).join("");
  };
};
"""
PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" width="600" height="240" viewBox="0 0 600 240">
<circle cx="200" cy="120" r="100" fill="none" stroke="#888"/><circle cx="200" cy="120" r="8"/><circle cx="250" cy="80" r="8"/>
<circle cx="420" cy="150" r="8" fill="#c50"/></svg>
"""


def neighbors(name, root):
    """The buttons to the previous and the next page; an empty text where there is none."""
    order = [None, *PAGES, None]
    place = order.index(name) if name in PAGES else None
    for step in (-1, 1):
        neighbor = place and order[place + step]
        yield NEIGHBOR % (root + neighbor, PAGES[neighbor][0]) if neighbor else ""


def html(name, root):
    """The page of this name; `root` is the way from it to the home page's folder."""
    title, description, body = PAGES.get(name, NOT_FOUND)
    previous, following = neighbors(name, root)
    return PAGE.substitute(
        title=title,
        description=description,
        body=Template(body).substitute(root=root),
        root=root,
        public=PUBLIC,
        navbar="".join(NAVBAR_ITEM % (root + target, text) for text, target in NAVBAR.items()),
        sidebar="".join(SIDEBAR_ITEM % (root + target, page[0]) for target, page in PAGES.items()),
        previous=previous,
        next=following,
    )


def files():
    """Path and text of each file of the site."""
    for name, (title, description, _) in PAGES.items():
        yield name, html(name, "../" if "/" in name else "./")
        yield name + ".md", f"# {title}\n\n{description}\n"
    yield "404.html", html("404.html", "/package/")
    yield "search.json", json.dumps([{"href": name, "title": page[0], "text": page[2]} for name, page in PAGES.items()])
    yield "site_libs/light.css", LIGHT
    yield "site_libs/dark.css", DARK
    yield "site_libs/quarto.js", SCRIPT
    for name in ("favicon", "card", "demo"):
        yield f"images/{name}.svg", PICTURE


def write(folder):
    for name, text in files():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Path(folder)
