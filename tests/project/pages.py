"""Pages of the site as nbdev prepares them for Quarto: their headings, links, names and pictures."""

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from markdown_it import MarkdownIt

MARKDOWN = MarkdownIt("commonmark").enable("table")
SITE = "https://tripletloss.github.io/tripletloss/"
# What stands on pages for Quarto itself; anything else behind #| is nbdev's and must be gone.
QUARTO_OPTIONS = {"echo", "output", "code-fold", "code-summary", "classes", "fig-cap", "fig-alt"}


@dataclass
class Cell:
    kind: str
    source: str
    outputs: list
    position: int

    @cached_property
    def options(self) -> dict[str, str]:
        """What its `#|` lines say; a line without a value has the value ""."""
        lines = re.findall(r"^\s*#\s*\|\s*([^:\n]*)(?::(.*))?$", self.source, re.M) if self.kind == "code" else []
        return {name.strip(): value.strip().strip('"') for name, value in lines}

    @property
    def pictures(self) -> int:
        return sum("image/png" in output.get("data", {}) for output in self.outputs)

    @property
    def shown(self) -> list[str]:
        """Its outputs as the page shows them, markdown before plain text."""
        texts = []
        for output in self.outputs:
            data = output.get("data", {})
            if "image/png" not in data:
                texts.append("".join(output.get("text") or data.get("text/markdown") or data.get("text/plain", "")))
        return texts

    @property
    def prose(self) -> str:
        """Markdown: a markdown cell's source or the markdown among a code cell's outputs."""
        if self.kind == "markdown":
            return self.source
        return "\n\n".join("".join(output.get("data", {}).get("text/markdown", "")) for output in self.outputs)


def inline_text(tokens) -> str:
    return "".join(token.content for token in tokens if token.type in ("text", "code_inline"))


def slug(heading: str) -> str:
    """The anchor that Pandoc gives a heading."""
    kept = re.sub(r"[^\w\s.-]", "", heading).lower()
    return re.sub(r"^[^a-z]+", "", re.sub(r"\s+", "-", kept.strip())) or "section"


@dataclass
class Page:
    path: str  # of the notebook below nbs/
    cells: list[Cell]
    output: str  # name of the page's file
    headings: list[tuple[int, str]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # in backticks and not links
    pictures: list[tuple[str, str]] = field(default_factory=list)  # of markdown: target, alternative text

    def __post_init__(self):
        for cell in self.cells:
            self.read(cell.prose)

    def read(self, prose: str) -> None:
        level, within_link = 0, False
        for token in MARKDOWN.parse(re.sub(r"\A---\n.*?\n---\n", "", prose, flags=re.S)):
            if token.type == "heading_open":
                level = int(token.tag[1])
            elif token.type == "inline":
                if level:
                    self.headings.append((level, inline_text(token.children)))
                    level = 0
                for child in token.children:
                    if child.type == "link_open":
                        self.links.append(child.attrs["href"])
                    elif child.type == "image":
                        self.pictures.append((child.attrs["src"], child.content))
                    elif child.type == "code_inline" and not within_link:
                        self.names.append(child.content)
                    within_link = child.type == "link_open" or (within_link and child.type != "link_close")

    @property
    def anchors(self) -> list[str]:
        return [slug(text) for _, text in self.headings]

    @property
    def documented(self) -> list[str]:
        """Names whose signature and docstring stand here."""
        return [
            match[1] for cell in self.cells if cell.kind == "code" and (match := re.search(r"^show_doc\((\w+)\)", cell.source, re.M))
        ]


def read_page(file: Path, folder: Path) -> Page:
    cells = [
        Cell(cell["cell_type"], "".join(cell["source"]), cell.get("outputs", []), position)
        for position, cell in enumerate(json.loads(file.read_text(encoding="utf-8"))["cells"])
    ]
    front = re.search(r"^output-file: (.+)$", cells[0].source, re.M)
    path = file.relative_to(folder)
    return Page(path.as_posix(), cells, (path.parent / (front[1] if front else path.with_suffix(".html").name)).as_posix())


def read_pages(folder: Path) -> list[Page]:
    return [read_page(file, folder) for file in sorted(folder.rglob("*.ipynb"))]
