"""How a page shows a name: nbdev's `show_doc`, with the sections of a docstring that nbdev leaves out.

settings.ini names it as `renderer`. Where a docstring has no sections, the signature is shown as it is written, with its comments.
"""

import ast
import inspect
import linecache
import re
import textwrap
import warnings
from collections.abc import Callable

from nbdev.showdoc import BasicMarkdownRenderer

# fastcore takes the title of this section for two words, and says so on each page.
warnings.filterwarnings("ignore", "Unknown section See Also", module="fastcore")
HEADING = re.compile(r"^([A-Z][A-Za-z ]+)\n-{3,}\n", re.M)
ENTRY = re.compile(r"^(\S.*(?:\n(?: .*|$))*)", re.M)


def signature(symbol: Callable) -> str:
    """Names and defaults; what the parameters are is told below."""
    whole = inspect.signature(symbol)
    bare = [one.replace(annotation=one.empty) for one in whole.parameters.values() if one.name != "self"]
    text = f"{symbol.__qualname__}{whole.replace(parameters=bare, return_annotation=whole.empty)}"
    return textwrap.fill(text, 84, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def source_of(symbol: Callable) -> str:
    """Its source; Python itself finds that of a function in a notebook's cell, and not that of a class."""
    try:
        return textwrap.dedent(inspect.getsource(symbol))
    except OSError:
        cells = ("".join(entry[2]) for entry in linecache.cache.values() if len(entry) == 4)
        begin = re.compile(rf"^class {symbol.__name__}\b", re.M)
        lines = next(cell[found.start() :] for cell in cells if (found := begin.search(cell))).splitlines()
        return "".join(inspect.getblock([f"{line}\n" for line in lines]))


def as_written(symbol: Callable) -> str:
    """The first lines of its source: what it takes, with the comments; of a class its fields and what makes it."""
    source = source_of(symbol)
    (definition,), lines = ast.parse(source).body, source.splitlines()

    def head(function: ast.FunctionDef) -> list[str]:
        return lines[function.lineno - 1 : function.body[0].lineno - 1]

    if isinstance(definition, ast.FunctionDef):
        kept = head(definition)
    else:
        kept = [lines[definition.lineno - 1]]
        for node in definition.body:
            if isinstance(node, ast.AnnAssign):
                kept += lines[node.lineno - 1 : node.end_lineno]
            elif getattr(node, "name", "") == "__init__":
                kept += head(node)
    return "\n".join(kept).replace("`", "")  # which nbdev would make links of, within the code


def as_markdown(text: str) -> str:
    """Strings as code, papers as links, and asterisks as such, since they multiply; code stays as it is."""
    marked = {'"': "`{}`", "*": "\\{}", "`": "{}"}
    number = "[{0}](https://arxiv.org/abs/{0})"
    return re.sub(r'`[^`]*`|"[\w-]*"|\*|\d{4}\.\d{5}', lambda found: marked.get(found[0][0], number).format(found[0]), text)


def item(entry: str, named: bool) -> str:
    """What an entry says, as an item of a list: of something named here, or of a type, an error or a neighbour, which may be a link."""
    head, _, text = entry.strip().partition("\n")
    name, _, kind = (as_markdown(part) for part in head.partition(" : "))
    details = [f" ({kind})" if named else f": {kind}"] * bool(kind) + [f": {as_markdown(textwrap.dedent(text))}"] * bool(text)
    return "- " + textwrap.indent((f"**{name}**" if named else f"`{name}`") + "".join(details), "  ")[2:]


def block(heading: str, section: str) -> str:
    """A section as a list; examples as code."""
    if heading == "Examples":
        return f"**{heading}**\n\n```python\n{section.strip()}\n```"
    named = heading in ("Parameters", "Attributes")
    return f"**{heading}**\n\n" + "\n".join(item(entry, named) for entry in ENTRY.findall(section))


class Renderer(BasicMarkdownRenderer):
    """Signature, summary and sections; behind those of a class, the methods that have sections as well."""

    def _repr_markdown_(self) -> str:
        summary, *parts = HEADING.split(inspect.getdoc(self.sym) or "")
        link_and_heading = super()._repr_markdown_().partition("```python")[0]
        first, _, more = as_markdown(summary).partition("\n")
        blocks = [f"```python\n{signature(self.sym) if parts else as_written(self.sym)}\n```", f"*{first}*" if first else "", more.strip()]
        blocks += map(block, parts[::2], parts[1::2])
        return link_and_heading + "\n\n".join([*filter(None, blocks), *self.methods()])

    def methods(self) -> list[str]:
        members = [getattr(self.sym, name) for name in vars(self.sym) if not name.startswith("_")]
        described = [one for one in members if inspect.isroutine(one) and HEADING.search(inspect.getdoc(one) or "")]
        return [Renderer(one, title_level=self.title_level + 1)._repr_markdown_().removeprefix("---\n\n") for one in described]
