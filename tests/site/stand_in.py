"""A small site that looks to a test as Quarto's does: the same elements with the same classes, on five pages.

It stands in where there is no Quarto, so that the checks themselves are checked. `write` makes it.
"""

import json

PUBLIC = "https://stand-in.example/package/"
COMING = "tutorials/coming_from_another_library.html"
NAVBAR = {"Tutorials": "demo.html", "How it works": "mining.html", "Reference": "reference.html", "Coming from…": COMING}

CODE = """<div class="sourceCode" id="cb1"><pre class="sourceCode python code-with-copy"><code class="sourceCode python">\
<span id="cb1-1"><span class="im">import</span> tripletloss <span class="im">as</span> tl</span>
<span id="cb1-2">loss <span class="op">=</span> tl.TripletLoss(margin<span class="op">=</span><span class="fl">0.5</span>)\
  <span class="co"># wider than a phone, so this block scrolls, and the page around it does not</span></span>\
</code><button title="Copy to Clipboard" class="code-copy-button"><i class="bi"></i></button></pre></div>"""
OWN_NOTEBOOK = """<p><a href="https://colab.research.google.com/github/stand-in/package/blob/main/nbs/%s">Open in Colab</a> ·
<a href="https://raw.githubusercontent.com/stand-in/package/main/nbs/%s">Download the notebook</a></p>"""

# In reading order: title, description and what is below them.
PAGES = {
    "index.html": (
        "package",
        "A loss, derived in notebooks",
        f"""<pre><code>pip install package</code></pre>
        {CODE}<div class="quarto-figure quarto-figure-center"><figure class="figure"><p><img src="./images/demo.svg"
        class="img-fluid figure-img" alt="Three points and a margin around one of them"></p>
        <figcaption>An anchor, its positive and a negative.</figcaption></figure></div>
        <p><a href="{PUBLIC}reference.html#tripletloss"><code>TripletLoss</code></a> mines semi-hard negatives,
        <a href="./mining.html#semi-hard">as derived here</a>.</p>""",
    ),
    "demo.html": ("Quickstart", "From pictures to neighbours", OWN_NOTEBOOK % (("08_demo.ipynb",) * 2) + CODE),
    "mining.html": (
        "Mining",
        "Which example is whose negative",
        """<section id="semi-hard" class="level2"><h2 class="anchored" data-anchor-id="semi-hard">The nearest of the others</h2>
        <p>A negative is semi-hard if it is farther away than the positive, by less than the margin
        <math display="inline"><mi>m</mi></math>:</p><p><math display="block"><msub><mi>d</mi><mi>p</mi></msub><mo>&lt;</mo>
        <msub><mi>d</mi><mi>n</mi></msub></math></p>
        <details class="code-fold"><summary>Source</summary><p>Folded.</p></details>
        </section>""",
    ),
    "reference.html": (
        "Reference",
        "Every name",
        """<section id="tripletloss" class="level3"><h3 class="anchored">TripletLoss</h3><table class="table"><tbody>
        <tr><td><code>margin</code></td><td>How much farther</td></tr></tbody></table></section>""",
    ),
    COMING: (
        "Coming from another library",
        "What their losses are called here",
        OWN_NOTEBOOK % ((COMING.replace(".html", ".ipynb"),) * 2) + "<p>Their semihard is ours.</p>",
    ),
}
NOT_FOUND = ("No such page", "The address leads nowhere", '<p><a href="/package/index.html">Start at the home page</a></p>')

LIGHT = """
body { margin: 0; font: 16px/1.5 sans-serif; background: #fff; color: #343a40; }
a { color: #1b5e9e; }
.navbar-container { display: flex; flex-wrap: wrap; gap: 1em; padding: .5em 1em; background: #1b5e9e; }
.navbar a { color: #fff; text-decoration: none; }
#quarto-content { display: flex; gap: 2em; padding: 1em; }
main { max-width: 760px; min-width: 0; }
img { max-width: 100%; }
pre { overflow-x: auto; padding: 1em; font-size: .6em; background: rgba(127, 127, 127, .1); }
.aa-DetachedOverlay { position: fixed; inset: 4em 20%; padding: 1em; background: #eee; }
@media (max-width: 991px) { #quarto-sidebar { display: none; } }
"""
DARK = "body { background: #222; color: #dee2e6; } a { color: #00bc8c; }"
SCRIPT = """
window.quartoToggleColorScheme = () => {
  const dark = document.querySelector("link.quarto-color-alternate");
  dark.disabled = !dark.disabled;
};

const overlay = document.querySelector(".aa-DetachedOverlay");
document.querySelector("#quarto-search button").onclick = () => { overlay.hidden = false; };
overlay.querySelector("input").oninput = async (event) => {
  const root = document.querySelector("meta[name='quarto:offset']").content;
  const entries = await (await fetch(root + "search.json")).json();
  const found = entries.filter((entry) => entry.text.toLowerCase().includes(event.target.value.toLowerCase()));
  overlay.querySelector("ul").innerHTML = found.map((entry) =>
    `<li class="aa-Item"><a class="search-result-link" href="${root + entry.href}">${entry.title}</a></li>`).join("");
};
"""
PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" width="600" height="240" viewBox="0 0 600 240">
<circle cx="200" cy="120" r="100" fill="none" stroke="#888"/><circle cx="200" cy="120" r="8"/><circle cx="250" cy="80" r="8"/>
<circle cx="420" cy="150" r="8" fill="#c50"/></svg>"""


def neighbor(name, step, root):
    """The button to the previous or the next page; nothing where there is none."""
    order = [None, *PAGES, None]
    target = order[order.index(name) + step] if name in PAGES else None
    text = f'<span class="nav-page-text">{target and PAGES[target][0]}</span>'
    return f'<a href="{root}{target}" class="pagination-link">{text}</a>' if target else ""


def html(name, root):
    """The page of this name; `root` is the way from it to the home page's folder."""
    title, description, body = PAGES.get(name, NOT_FOUND)
    entry = '<li class="{0}-item"><a class="{0}-link" href="{1}"><span class="menu-text">{2}</span></a></li>\n'
    navbar = "".join(entry.format("nav", root + target, text) for text, target in NAVBAR.items())
    sidebar = "".join(entry.format("sidebar", root + target, page[0]) for target, page in PAGES.items())
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1.0, user-scalable=yes">
<meta name="description" content="{description}">
<title>{title} – package</title>
<meta name="quarto:offset" content="{root}">
<link href="{root}images/favicon.svg" rel="icon" type="image/svg+xml">
<link href="{root}site_libs/light.css" rel="stylesheet" class="quarto-color-scheme" id="quarto-bootstrap">
<link href="{root}site_libs/dark.css" rel="stylesheet" class="quarto-color-scheme quarto-color-alternate" disabled>
<meta property="og:image" content="{PUBLIC}images/card.svg">
</head>
<body class="nav-sidebar floating nav-fixed quarto-light">
<header id="quarto-header" class="headroom fixed-top">
  <nav class="navbar navbar-expand-lg" data-bs-theme="dark"><div class="navbar-container container-fluid">
    <a class="navbar-brand" href="{root}index.html"><span class="navbar-title">package</span></a>
    <div id="quarto-search" class="type-overlay"><button type="button" title="Search">Search</button></div>
    <ul class="navbar-nav navbar-nav-scroll me-auto">{navbar}</ul>
    <a href="" class="quarto-color-scheme-toggle quarto-navigation-tool" title="Toggle dark mode"
      onclick="window.quartoToggleColorScheme(); return false;"><i class="bi">◐</i></a>
  </div></nav>
</header>
<div id="quarto-content" class="quarto-container page-columns page-rows-contents page-layout-article page-navbar">
  <nav id="quarto-sidebar" class="sidebar collapse sidebar-navigation floating"><ul class="list-unstyled">{sidebar}</ul></nav>
  <main class="content" id="quarto-document-content">
    <header id="title-block-header" class="quarto-title-block default">
      <h1 class="title">{title}</h1><div class="description">{description}</div>
    </header>
    {body}
    <nav class="page-navigation">
      <div class="nav-page nav-page-previous">{neighbor(name, -1, root)}</div>
      <div class="nav-page nav-page-next">{neighbor(name, 1, root)}</div>
    </nav>
  </main>
</div>
<div class="aa-DetachedOverlay" hidden><input class="aa-Input" type="search"><ul class="aa-List"></ul></div>
<script src="{root}site_libs/quarto.js"></script>
</body></html>
"""


def write(folder):
    """The files of the site, in a folder."""
    files = {name: html(name, "../" if "/" in name else "./") for name in PAGES} | {"404.html": html("404.html", "/package/")}
    files |= {f"{name}.md": f"# {title}\n\n{description}\n" for name, (title, description, _) in PAGES.items()}
    files |= {"site_libs/light.css": LIGHT, "site_libs/dark.css": DARK, "site_libs/quarto.js": SCRIPT}
    files |= {f"images/{name}.svg": PICTURE for name in ("favicon", "card", "demo")}
    files["search.json"] = json.dumps([{"href": x, "title": PAGES[x][0], "text": PAGES[x][2]} for x in reversed(PAGES) if x != "index.html"])
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder
