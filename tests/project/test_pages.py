"""The pages as nbdev prepares them for Quarto: nothing hidden is left, and all that they point at is there."""

import base64
import io
import itertools
import json
import re
import struct
from pathlib import Path
from urllib.parse import urldefrag

import numpy as np
import pytest
import yaml
from checkout import copy_of, run_python
from pages import MARKDOWN, QUARTO_OPTIONS, SITE, read_pages, slug
from PIL import Image

pytestmark = pytest.mark.xdist_group("pages")  # prepared once, by one process

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "nbs"
REPOSITORY = "https://github.com/tripletloss/tripletloss"
# Addresses at which files of this repository are read.
OWN_FILES = (
    f"{REPOSITORY}/blob/main/",
    "https://raw.githubusercontent.com/tripletloss/tripletloss/main/",
    "https://colab.research.google.com/github/tripletloss/tripletloss/blob/main/",
)
EXTERNAL_LINKS = Path(__file__).parent / "external_links.txt"
TUTORIALS = ["08_demo.ipynb", *sorted(f"tutorials/{path.name}" for path in NOTEBOOKS.glob("tutorials/*.ipynb"))]
ON_COLAB = '#| hide\n! [ -e /content ] && pip install -q "tripletloss[demo]"  # on Colab only'
CONSTANTS = {"AVERAGES", "NEGATIVE_MINING_STRATEGIES", "POSITIVE_MINING_STRATEGIES"}
# In backticks on pages, and in no cell: names of other packages.
NAMES_OF_OTHERS = set(
    re.findall(
        r"\w+",
        """BatchHardTripletLossDistanceFunction COSINE CosineSimilarity DataParallel DotProductSimilarity MANHATTAN
        MultiWorkerMirroredStrategy TripletMarginMiner allowed_pos_range cosine_distance euclidean_distance
        init_process_group jax_enable_x64 nn pmap ref_emb ref_labels shard_map singletons torchrun validation_freq""",
    )
)


@pytest.fixture(scope="module")
def prepared(root, tmp_path_factory):
    """The folder that Quarto would be given, and what was said while it was made."""
    pytest.importorskip("nbdev", reason="pages are prepared by nbdev: pip install 'tripletloss[dev]'")
    copy = copy_of(root, tmp_path_factory.mktemp("pages") / root.name)
    # In a module of its own: its processes are started anew, and import what started them.
    said = run_python(["-W", "always", "-c", "from nbdev.serve import proc_nbs; proc_nbs(n_workers=0)"], copy)
    return copy / "_proc", said


@pytest.fixture(scope="module")
def pages(prepared):
    return read_pages(prepared[0])


@pytest.fixture(scope="module")
def anchors(pages):
    """Of each page's file, and of each notebook, the anchors of its headings."""
    return {name: {"", *page.anchors} for page in pages for name in (page.path, page.output)}


@pytest.fixture(scope="module")
def site():
    """What Quarto is told of the website: by hand, and by nbdev from settings.ini."""
    by_hand, by_nbdev = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / "_quarto.yml", NOTEBOOKS / "nbdev.yml"))
    assert by_hand["metadata-files"] == ["nbdev.yml"]
    assert not by_hand["website"].keys() & by_nbdev["website"].keys(), "each once"
    return by_hand["website"] | by_nbdev["website"]


def refuse(found):
    found = list(found)
    assert not found, "\n".join(found)


def test_every_notebook_becomes_a_page_without_a_warning(prepared, pages):
    folder, said = prepared
    sources = {path.relative_to(NOTEBOOKS).as_posix() for path in NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts}
    assert {page.path for page in pages} == sources
    for name in ("_quarto.yml", "nbdev.yml", "404.qmd", "styles.scss", "math.lua", "images/card.png", "tutorials/moving_figures.js", "tutorials/micropython/micropython.wasm"):
        assert (folder / name).read_bytes() == (NOTEBOOKS / name).read_bytes()
    refuse(re.findall(r".*\b\w*Warning\b.*|.*Traceback.*", said))


def pictures_in(notebook):
    """As their bytes, in order."""
    outputs = [output for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] for output in cell.get("outputs", [])]
    return [base64.b64decode("".join(data)) for output in outputs if (data := output.get("data", {}).get("image/png"))]


def test_pictures_weigh_a_third_and_look_the_same(prepared, pages):
    weights = np.zeros(2)
    for page in pages:
        drawn, shown = (pictures_in(folder / page.path) for folder in (NOTEBOOKS, prepared[0]))
        weights += sum(map(len, drawn)), sum(map(len, shown))
        for before, after in zip(drawn, shown, strict=True):
            before, after = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int) for data in (before, after))
            away = np.abs(after - before)
            assert away.mean() < 0.2 and np.mean(away.max(axis=-1) > 32) < 0.001, page.path  # of 255
    assert weights[1] < 0.4 * weights[0]


def test_no_directive_and_no_hidden_cell_is_left(pages):
    refuse(
        f"{page.path}: {option} in {cell.source[:80]!r}"
        for page in pages
        for cell in page.cells
        for option in cell.options
        if option not in QUARTO_OPTIONS
    )


def test_no_output_is_html(pages):
    """Quarto would have such a page ask another host for jQuery and RequireJS; HTML in markdown it takes as it is."""
    refuse(f"{page.path}: {cell.source[:80]!r}" for page in pages for cell in page.cells for output in cell.outputs if "text/html" in output.get("data", {}))


def test_signatures_are_as_written_and_no_link_stands_in_another(pages):
    strange = re.compile(r"keras\.src\.|\(\n?\s*\*args, \*\*kwargs\n?\)|<lambda>|\[\[`|^ .*#.*\]\(http", re.M)
    refuse(
        f"{page.path}: {match[0]!r} in {cell.prose[max(0, match.start() - 60) : match.end() + 60]!r}"
        for page in pages
        for cell in page.cells
        for match in strange.finditer(cell.prose)
    )


def test_no_machine_shows(pages):
    """Neither a path of the machine that ran the notebook, nor an object's address or bare repr."""
    strange = re.compile(r"/home/|/root/|/work/|/Users/|\\Users\\|site-packages|/tmp/\w|\bat 0x[0-9a-f]{6}|<(?:tf|keras)\.|np\.float")
    refuse(
        f"{page.path}: {match[0]!r} in {text[max(0, match.start() - 60) : match.end() + 60]!r}"
        for page in pages
        for cell in page.cells
        for text in [*cell.shown, cell.source if cell.kind == "markdown" else ""]
        if (match := strange.search(text))
    )


def where_it_leads(page, target, anchors):
    """What is wrong with a link, or None."""
    address, anchor = urldefrag(target)
    if any(address.startswith(start) for start in OWN_FILES):
        path = ROOT / re.sub(r"^.*?/main/", "", address)
        line = int(anchor[1:]) if re.fullmatch(r"L\d+", anchor) else 1
        return None if path.is_file() and line <= len(path.read_bytes().splitlines()) else "no such file or line"
    if address.startswith(SITE):
        name = address.removeprefix(SITE) or "index.html"
    elif "://" in address:
        return None
    else:
        place = (NOTEBOOKS / page.path).parent / address if address else NOTEBOOKS / page.path
        if place.suffix != ".ipynb":
            return None if place.is_file() else "no such file"
        name = place.resolve().relative_to(NOTEBOOKS).as_posix()
    if name not in anchors:
        return "no such page"
    return None if anchor in anchors[name] else "no such heading"


def test_every_link_leads_somewhere(pages, anchors):
    assert sum(len(page.links) for page in pages) > 400
    refuse(
        f"{page.path}: {target}: {wrong}"
        for page in pages
        for target in page.links
        if (wrong := where_it_leads(page, target, anchors))
    )


def links_of(text):
    return [
        child.attrs["href"]
        for token in MARKDOWN.parse(text)
        for child in token.children or ()
        if child.type == "link_open"
    ]


def test_external_links_are_listed(pages):
    """All in one file, to be looked over now and then: nothing here asks the network."""
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", NOTEBOOKS / "404.qmd"]
    targets = {link for page in pages for link in page.links}
    targets |= {link for path in documents for link in links_of(path.read_text(encoding="utf-8"))}
    own = (*OWN_FILES, SITE)
    used = {urldefrag(target)[0] for target in targets if "://" in target and not target.startswith(own)}
    listed = EXTERNAL_LINKS.read_text(encoding="utf-8").split()
    assert listed == sorted(used), f"{EXTERNAL_LINKS.name} is to hold\n" + "\n".join(sorted(used))


def test_documents_of_the_repository_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in links_of((ROOT / name).read_text(encoding="utf-8")):
            if "://" not in target and not target.startswith("#"):
                assert (ROOT / urldefrag(target)[0]).exists(), f"{name}: {target}"


def test_names_in_backticks_are_names_of_something(pages):
    """What is a public name is a link by now; another identifier stands in some cell, or is one of the others' names."""
    words = {word for page in pages for cell in page.cells if cell.kind == "code" for word in re.findall(r"[A-Za-z_]\w*", cell.source)}
    assert not NAMES_OF_OTHERS & words, "these stand in a cell now, and need not be listed"
    used = set()
    unknown = []
    for page in pages:
        for name in page.names:
            if re.fullmatch(r"[A-Za-z_][\w.]*(\(\))?", name):
                parts = set(re.findall(r"[A-Za-z_]\w*", name.removeprefix("val_"))) - words
                used |= parts & NAMES_OF_OTHERS
                unknown += [f"{page.path}: {part} of {name}" for part in parts - NAMES_OF_OTHERS]
    refuse(unknown)
    assert used == NAMES_OF_OTHERS


def test_every_public_name_has_one_place(pages):
    """The reference, which lists them all, leads to the one page with a name's signature, docstring and an example."""
    source = "\n".join(cell.source for page in pages if page.path == "reference.ipynb" for cell in page.cells)
    rows = re.findall(r"^\| \[`(\w+)`\]\((\S+)\) \|", source, re.M)
    assert len(rows) == len(re.findall(r"^\| (?!name|-)", source, re.M)), "a name is no link"
    places = {name: [f"{SITE}{page.output}#{slug(name)}" for page in pages if name in page.documented] for name, _ in rows}
    # Constants have no docstring: the link leads to a heading.
    refuse(f"{name} leads to {to} and stands in {places[name]}" for name, to in rows if name not in CONSTANTS and places[name] != [to])


def test_a_page_says_of_a_name_what_help_says(pages):
    """With the sections that nbdev's own show_doc leaves out."""
    (reference,) = (page for page in pages if page.path == "reference.ipynb")
    listed = {name for cell in reference.cells for name in re.findall(r"^\| \[`(\w+)`\]", cell.source, re.M)} - CONSTANTS
    shown = {name: cell.prose for page in pages for cell in page.cells for name in re.findall(r"^show_doc\((\w+)\)", cell.source, re.M)}
    refuse(f"{name} has no {part}" for name in listed for part in ("**See Also**", "**Examples**") if part not in shown[name])
    assert "**anchor** (array): (t,) int64" in shown["TripletIndices"], "nor fields"
    assert "### EmbeddingIndex.calibrate" in shown["EmbeddingIndex"], "nor methods"


def test_tutorials_use_what_the_reference_lists(pages):
    (reference,) = (page for page in pages if page.path == "reference.ipynb")
    listed = {name for cell in reference.cells for name in re.findall(r"^\| \[`(\w+)`\]", cell.source, re.M)}
    modules = {path.stem for path in (ROOT / "tripletloss").glob("*.py")}
    refuse(
        f"{page.path} uses {name}, which the reference does not list"
        for page in pages
        if page.path in (*TUTORIALS[1:], "index.ipynb")
        for cell in page.cells
        if cell.kind == "code"
        for name in names_used(cell.source) - listed - modules
    )


def names_used(source):
    """Names of the package in a cell: imported from one of its modules, or behind `tl.`."""
    imported = re.findall(r"^from tripletloss[.\w]* import ([\w, ]+)", source, re.M)
    return {name for names in imported for name in re.split(r",\s*", names)} | set(re.findall(r"\btl\.(?:\w+\.)?(\w+)", source))


def hrefs(item):
    """All targets below an item of the navigation, in order."""
    if isinstance(item, list):
        return [target for each in item for target in hrefs(each)]
    return [item["href"]] if "href" in item else hrefs(item.get("contents", []))


def test_navigation_reaches_every_page_once(site, pages):
    order = hrefs(site["sidebar"]["contents"])
    assert sorted(order) == sorted(page.path for page in pages)
    assert order[:3] == ["index.ipynb", "tutorials/ten_minutes.ipynb", "08_demo.ipynb"]
    start = order.index("reference.ipynb")
    assert order[start + 1 : start + 4] == ["00_distances.ipynb", "01_mining.ipynb", "02_losses.ipynb"]
    navbar = site["navbar"]["left"] + site["navbar"]["right"]
    assert [item["text"] for item in navbar] == ["Tutorials", "How it works", "Reference", "Coming from...", "GitHub"]
    refuse(target for target in hrefs(navbar) if "://" not in target and not (NOTEBOOKS / urldefrag(target)[0]).is_file())


def png_size(path):
    return struct.unpack(">II", path.read_bytes()[16:24])


def test_pictures_of_the_site_are_there(site):
    assert png_size(NOTEBOOKS / site["favicon"]) == (64, 64)
    for place in ("open-graph", "twitter-card"):
        assert site[place]["image"].startswith(site["site-url"] + "/")
        assert png_size(NOTEBOOKS / site[place]["image"].removeprefix(site["site-url"] + "/")) == (1200, 630)


def test_every_picture_has_a_caption_and_a_text(pages):
    assert sum(cell.pictures for page in pages for cell in page.cells) > 35
    for page in pages:
        refuse(f"{page.path}: {target} has no alternative text" for target, text in page.pictures if len(text) < 20)
        refuse(
            f"{page.path}: {option} is missing or short in\n{cell.source}"
            for cell in page.cells
            if cell.pictures
            for option in ("fig-cap", "fig-alt")
            if len(cell.options.get(option, "")) < 20
        )


@pytest.mark.parametrize("path", TUTORIALS)
def test_a_tutorial_opens_elsewhere(path):
    """Its first cells: the title, links to open it in Colab and to download it, and what it needs there."""
    cells = json.loads((NOTEBOOKS / path).read_text(encoding="utf-8"))["cells"][:4]
    sources = ["".join(cell["source"]) for cell in cells]
    colab, raw = OWN_FILES[2] + "nbs/" + path, OWN_FILES[1] + "nbs/" + path
    assert sources[1] == f"[Open in Colab]({colab}) · [Download the notebook]({raw})"
    assert ON_COLAB in sources


def test_formulas_are_numbered_in_order_and_referred_to(pages):
    for page in pages:
        text = "\n".join(cell.source for cell in page.cells if cell.kind == "markdown")
        assert text.count("$$") % 2 == 0, page.path
        # MathML has no tag: the number stands at the end of the formula.
        assert r"\tag" not in text, page.path
        numbers = re.findall(r"\\qquad \((\d+)\)", text)
        assert numbers == [str(k + 1) for k in range(len(numbers))], page.path
        refuse(f"{page.path}: nothing refers to ({number})" for number in numbers if f"({number})" not in text)


def test_headings_step_down_one_at_a_time(pages):
    for page in pages:
        levels = [1, *(level for cell in page.cells if cell.kind == "markdown" for level in heading_levels(cell.source))]
        steps = itertools.pairwise(levels)
        assert all(lower <= upper + 1 for upper, lower in steps), f"{page.path}: a heading skips a level"


def heading_levels(source):
    return [int(token.tag[1]) for token in MARKDOWN.parse(source) if token.type == "heading_open"]


def test_no_wall_of_text(pages):
    for page in pages:
        paragraphs = [
            token.content
            for cell in page.cells
            if cell.kind == "markdown"
            for before, token in itertools.pairwise(MARKDOWN.parse(cell.source))
            if before.type == "paragraph_open"
        ]
        refuse(f"{page.path}: {len(text.split())} words: {text[:80]}" for text in paragraphs if len(text.split()) > 120)
