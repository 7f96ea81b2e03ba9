"""The wheel and the sdist, built and used far from the repository; what an import brings along.

And what a user sees of the package: its names are those of the reference, and `help` says of each what it is.
"""

import ast
import builtins
import contextlib
import doctest
import email
import functools
import importlib.util
import inspect
import json
import re
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy
import pytest
from checkout import run_python

import tripletloss

pytestmark = pytest.mark.xdist_group("package")  # what is built once is built by one process

# A user's program: what is imported, what is missing without the extras, a training, and the demo's help.
PROGRAM = """
import contextlib, io, json, runpy, sys

asked = []


def refuse(event, arguments):
    '''No Python code goes round an audit hook, and whoever catches the error is found out by the list.'''
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"):
        asked.append(f"{event} {arguments}")
        raise OSError(f"{event} in a test without network")


sys.addaudithook(refuse)
import keras, numpy as np
before = set(sys.modules)
import tripletloss as tl

found = {
    "file": tl.__file__,
    "version": tl.__version__,
    "backend": keras.backend.backend(),
    "imported": sorted({name.split(".")[0] for name in sys.modules}),
    "added": sorted({name.split(".")[0] for name in set(sys.modules) - before}),
    "refused": [],
}
if found["backend"] == "tensorflow":
    missing = dict.fromkeys(["matplotlib", "matplotlib.pyplot", "sklearn", "sklearn.neighbors"])
    loaded = {name: sys.modules[name] for name in missing if name in sys.modules}
    sys.modules.update(missing)
    for use in (lambda: tl.plots, lambda: tl.metrics.retrieval_metrics([[0.0], [1.0]], [0, 0])):
        try:
            use()
        except ImportError as error:
            found["refused"].append(str(error))
    for name in missing:
        del sys.modules[name]
    sys.modules.update(loaded)

    x, y = np.random.default_rng(0).normal(size=(40, 6)).astype("float32"), np.arange(40) % 5
    model = keras.Sequential([keras.Input((6,)), tl.layers.L2Embedding(4)])
    model.compile(optimizer="sgd", loss=tl.TripletLoss())
    found["losses"] = model.fit(tl.samplers.PKBatches(x, y, 4, 3, seed=1), verbose=0).history["loss"]
    embeddings = model.predict(x, verbose=0)
    tl.metrics.retrieval_metrics(embeddings, y)
    tl.plots.plot_distances(embeddings, y)

    sys.argv[1:] = ["--help"]
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        runpy.run_module("tripletloss.demo", run_name="__main__", alter_sys=True)
    found["help"] = said.getvalue()
print("FOUND", json.dumps(found | {"asked": asked}), flush=True)
"""


@pytest.fixture(scope="module")
def found(installed, tmp_path_factory):
    """A function: what the program finds on a backend, as installed and far from the repository."""

    @functools.cache
    def run(backend):
        if importlib.util.find_spec(backend) is None:
            pytest.skip(f"the backend {backend} is not installed")
        said = run_python(["-c", PROGRAM], tmp_path_factory.mktemp("user"), PYTHONPATH=str(installed), KERAS_BACKEND=backend)
        return json.loads(re.search(r"^FOUND (.*)$", said, re.M)[1])

    return run


# Wheel and sdist.


def test_wheel_holds_the_package_and_nothing_else(built, root):
    names = zipfile.ZipFile(built[0]).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tripletloss"}
    assert len(tops) == 2
    modules = {f"tripletloss/{path.name}" for path in (root / "tripletloss").glob("*.py")}
    assert {name for name in names if name.startswith("tripletloss/")} == modules | {"tripletloss/py.typed"}
    assert any(name.endswith("/LICENSE") for name in names)


def test_wheel_describes_itself(built):
    wheel = zipfile.ZipFile(built[0])
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    assert metadata["Name"] == "tripletloss"
    assert "Apache-2.0" in (metadata["License-Expression"], metadata["License"])
    assert metadata["Requires-Python"] == ">=3.11"
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    needed = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert sorted(line.split(">")[0].strip() for line in needed) == ["keras", "numpy", "tensorflow"]
    assert {"plots", "demo", "dev", "jax", "torch"} <= set(metadata.get_all("Provides-Extra"))
    assert "](nbs/" not in metadata.get_payload()  # links that lead nowhere outside the repository


def test_sdist_can_be_built_from(built):
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    top = {"setup.py", "pyproject.toml", "settings.ini", "README.md", "LICENSE", "CHANGELOG.md"}
    assert top | {"tripletloss/py.typed"} <= names


# As installed.


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_import_from_outside_the_repository(found, installed, settings, backend):
    """It brings along neither another backend nor what only extras need."""
    seen = found(backend)
    assert seen["file"].startswith(str(installed))
    assert (seen["backend"], seen["version"]) == (backend, settings["version"])
    assert backend == "tensorflow" or "tensorflow" not in seen["imported"]
    assert not {"matplotlib", "sklearn", "nbdev", "fastcore", "execnb", "PIL", "IPython", "pandas"} & set(seen["added"])


def test_an_editable_installation_is_found_from_anywhere(tmp_path):
    """Beside the clone, whose folder has the package's name, too; with the tools, among which nbdev finds its renderer."""
    (tmp_path / "tripletloss").mkdir()
    run_python(["-c", "import tools.showdoc, tripletloss; tripletloss.TripletLoss"], tmp_path)


def test_what_an_extra_brings_is_named(found):
    """Without matplotlib `tripletloss.plots`, and without scikit-learn a search, say what to install."""
    assert [re.search(r"pip install '.*'", text)[0] for text in found("tensorflow")["refused"]] == [
        "pip install 'tripletloss[plots]'",
        "pip install 'tripletloss[metrics]'",
    ]


def test_trains_as_installed_and_asks_for_no_network(found):
    (loss,) = found("tensorflow")["losses"]
    assert 0 < loss < 3
    assert not found("tensorflow")["asked"]


# The demo's command line.


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_demo_explains_itself(found, capsys, option):
    """As `python -m tripletloss.demo` too."""
    with pytest.raises(SystemExit, match="0"):
        module_of("demo").main([option])
    for said in (capsys.readouterr().out, found("tensorflow")["help"]):
        assert "--images" in said and "--output" in said


def test_plots_are_imported_when_they_are_asked_for(monkeypatch):
    monkeypatch.delattr(tripletloss, "plots", raising=False)
    assert tripletloss.plots is importlib.import_module("tripletloss.plots")


# What a user sees.

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = sorted(path.stem for path in (ROOT / "tripletloss").glob("*.py") if not path.stem.startswith("_"))
each_module = pytest.mark.parametrize("name", PUBLIC)


def module_of(name):
    """A module of the package; a skip where what it needs is not installed."""
    if name in ("plots", "demo"):
        pytest.importorskip("matplotlib", reason="plots and demo need matplotlib: pip install 'tripletloss[demo]'").use("agg")
        pytest.importorskip("sklearn", reason="plots and demo need scikit-learn: pip install 'tripletloss[demo]'")
    return importlib.import_module(f"tripletloss.{name}")


def public_objects(module):
    """Public classes and functions of a module, by name."""
    found = {name: getattr(module, name) for name in module.__all__}
    return {name: value for name, value in found.items() if inspect.isclass(value) or inspect.isfunction(value)}


def names_by_module():
    """What the reference lists: a table for each module, whose head says "name in `tl.losses`"."""
    found, module = {}, None
    for cell in json.loads((ROOT / "nbs" / "reference.ipynb").read_text(encoding="utf-8"))["cells"]:
        for line in "".join(cell["source"]).splitlines():
            if head := re.match(r"\| name in `\w+\.(\w+)` \|", line):
                module = found.setdefault(head[1], [])
            elif row := re.match(r"\| \[?`(\w+)`", line):
                module.append(row[1])
    return found


def test_the_reference_lists_each_public_name_once():
    listed = names_by_module()
    assert {name: sorted(names) for name, names in listed.items()} == {name: sorted(module_of(name).__all__) for name in PUBLIC}
    times = Counter(name for names in listed.values() for name in names)
    assert [name for name in times if times[name] > 1] == []


def test_the_reference_names_the_fields_of_tuples():
    rows = dict(re.findall(r"\| \[?`(\w+)`\S* \| (.*) \|", (ROOT / "nbs" / "reference.ipynb").read_text(encoding="utf-8")))
    fields = {name: value._fields for module in PUBLIC for name, value in public_objects(module_of(module)).items() if hasattr(value, "_fields")}
    assert len(fields) == 6
    assert [name for name in fields if f"`({', '.join(fields[name])})`" not in rows[name]] == []


def test_dir_shows_what_a_user_wants_and_nothing_else():
    listed = names_by_module()
    assert dir(tripletloss) == sorted({*tripletloss.__all__, "__version__"})
    assert set(tripletloss.__all__) & set(PUBLIC) == set(PUBLIC) - {"demo"}  # which is a program
    assert set(tripletloss.__all__) - set(PUBLIC) <= {*listed["losses"], *listed["mining"]}


def docstrings(module):
    """Docstrings of a module, its public names and their methods, with the class, if any, and the function they belong to."""
    yield module.__name__, module.__doc__, None, None
    for name, value in public_objects(module).items():
        if not inspect.isclass(value):
            yield name, value.__doc__, None, value
            continue
        yield name, value.__doc__, value, None
        for method, member in vars(value).items():
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if inspect.isfunction(function) and function.__doc__:
                yield f"{name}.{method}", function.__doc__, value, function


def names_within(docstring):
    """Names in backticks: those that stand alone, and those that are called."""
    for code in re.findall(r"`([^`\n]+)`", docstring):
        yield from re.findall(r"^[A-Za-z_][\w.]*$|[A-Za-z_][\w.]*(?=\()", code)


def resolves(name, module, owner, function):
    """Whether a name is a parameter, an attribute or a field of the result of what the docstring belongs to, or can be looked up."""
    functions = [function] if function else []
    functions += [one for one in vars(owner).values() if inspect.isfunction(one)] if owner else []
    signatures = [inspect.signature(one) for one in functions]
    if any(name in one.parameters or hasattr(one.return_annotation, name) for one in signatures):
        return True
    if owner and (hasattr(owner, name) or any(re.search(rf"self\.{name}\b", inspect.getsource(one)) for one in functions)):
        return True
    head, *rest = name.split(".")
    spaces = [vars(module), vars(tripletloss), {"keras": keras, "tripletloss": tripletloss}, vars(builtins)]
    value = next((space[head] for space in spaces if head in space), None)
    return functools.reduce(lambda value, part: getattr(value, part, None), rest, value) is not None


@each_module
def test_a_docstring_names_only_what_exists(name):
    module = module_of(name)
    unknown = [
        f"{where}: {one}"
        for where, docstring, owner, function in docstrings(module)
        for one in names_within(docstring)
        if not resolves(one, module, owner, function)
    ]
    assert not unknown, "\n".join(unknown)


SECTIONS = ("Parameters", "Attributes", "Returns", "Raises", "Warns", "See Also", "Examples")  # in this order


def sections_of(docstring):
    """What stands under each heading of a docstring; its first lines under ""."""
    parts = re.split(r"^([A-Z][A-Za-z ]+)\n-{3,}\n", inspect.cleandoc(docstring), flags=re.M)
    return dict(zip(["", *parts[1::2]], parts[::2], strict=True))


def entries_of(section):
    """What stands behind each name of a section, and below it."""
    parts = re.split(r"^(\S+)(?: : (.*))?$", section, flags=re.M)
    return {name: (kind or "", text.strip()) for name, kind, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)}


def default_of(kind):
    """What a parameter's description says that it is if it is not given: nothing, None, or a value."""
    if kind.endswith("optional"):
        return None
    _, found, default = kind.partition("default ")
    return ast.literal_eval(default) if found else inspect.Parameter.empty


def wrong_parameters(value, described):
    """Names of parameters that are not described, and what a description says of a default that is another."""
    taken = {name: one for name, one in inspect.signature(value).parameters.items() if name not in ("self", "cls")}
    parameters = {f"**{name}" if one.kind is one.VAR_KEYWORD else name: one for name, one in taken.items()}
    if list(parameters) != list(described):
        return [f"describes {list(described)}, and takes {list(parameters)}"]
    return [
        f"{name} is described by {described[name]}, its default is {one.default!r}"
        for name, one in parameters.items()
        if default_of(described[name][0]) != one.default or not described[name][1]
    ]


def wrong_sections(value, sections):
    """What a docstring lacks of a class or function with these parameters and results."""
    head, needed, wrong = sections[""].splitlines(), {"See Also", "Examples"}, []
    if (len(head) > 1 and head[1]) or not head[0].endswith((".", ":")):
        wrong.append(f"begins with something else than one line, {head[0]!r}")
    if hasattr(value, "_fields"):
        if list(entries_of(sections.get("Attributes", ""))) != list(value._fields):
            wrong.append("does not describe the fields of the tuple")
    elif not inspect.isclass(value) or "__init__" in vars(value):  # a class without takes the arguments of its parent
        needed |= {"Parameters"} if inspect.signature(value).parameters else set()
        wrong += wrong_parameters(value, entries_of(sections.get("Parameters", "")))
    if inspect.isfunction(value) and inspect.signature(value).return_annotation is not None:
        needed.add("Returns")
    if list(sections) != ["", *(name for name in SECTIONS if name in sections)]:
        wrong.append(f"has the sections {list(sections)[1:]}, of which only {SECTIONS} are known, in this order")
    return wrong + [f"has no {name}" for name in needed if not sections.get(name, "").strip()]


@each_module
def test_help_says_all_of_a_name(name):
    """In one line what it is; then each parameter with its default or each field, the result, what is near, an example."""
    wrong = [
        f"{public} {one}"
        for public, value in public_objects(module_of(name)).items()
        for one in wrong_sections(value, sections_of(value.__doc__))
    ]
    assert not wrong, "\n".join(wrong)


@each_module
def test_a_method_describes_its_parameters(name):
    """All of them, if any: most are those of Keras."""
    wrong = []
    for where, docstring, _, function in docstrings(module_of(name)):
        if function and "." in where and "Parameters" in (sections := sections_of(docstring)):
            wrong += [f"{where} {one}" for one in wrong_parameters(function, entries_of(sections["Parameters"]))]
    assert not wrong, "\n".join(wrong)


@each_module
def test_see_also_leads_to_names(name):
    """Those of the same module, or written out; not to itself, and to each once."""
    module = module_of(name)
    for public, value in public_objects(module).items():
        also = re.findall(r"^(\S.*?) : ", sections_of(value.__doc__).get("See Also", ""), re.M)
        unknown = [one for one in also if not resolves(one, module, None, None)]
        assert not unknown and public not in also and len(set(also)) == len(also), f"{public}: {also}"


def wrong_of(docstring):
    """What the rules say of a docstring of a function that takes a margin."""

    def function(margin: float = 1.0) -> float: ...

    return wrong_sections(function, sections_of(docstring))


WHOLE = """Say what it is.

Parameters
----------
margin : float, default 1.0
    by how much

Returns
-------
float
    the same

See Also
--------
other : another.

Examples
--------
>>> 1
1
"""


@pytest.mark.parametrize(
    ("old", "new", "noticed"),
    [
        ("", "", []),
        ("is.", "is", ["begins with something else than one line, 'Say what it is'"]),
        ("is.\n", "is.\nIt is.", ["begins with something else than one line, 'Say what it is.'"]),
        ("margin :", "other :", ["describes ['other'], and takes ['margin']"]),
        ("default 1.0", "default 2.0", ["margin is described by ('float, default 2.0', 'by how much'), its default is 1.0"]),
        (", default 1.0", "", ["margin is described by ('float', 'by how much'), its default is 1.0"]),
        ("    by how much\n", "", ["margin is described by ('float, default 1.0', ''), its default is 1.0"]),
        ("Returns\n-------\nfloat\n    the same", "", ["has no Returns"]),
        ("other : another.\n", "", ["has no See Also"]),
        (">>> 1\n1\n", "", ["has no Examples"]),
    ],
)
def test_what_help_lacks_is_noticed(old, new, noticed):
    assert wrong_of(WHOLE.replace(old, new, 1)) == noticed


@pytest.fixture
def short_trainings(name):
    """Nothing compiled, and in the demo two steps an epoch: an example says how a training is called, not how well it goes."""
    tensorflow = pytest.importorskip("tensorflow", reason="the project is tested on TensorFlow, which is not installed")
    keras.config.set_max_steps_per_epoch(2 if name == "demo" else None)
    tensorflow.config.run_functions_eagerly(True)
    yield
    tensorflow.config.run_functions_eagerly(False)
    keras.config.set_max_steps_per_epoch(None)


def run_examples(where, docstring):
    """With no more names than a user has."""
    said, names = [], {"keras": keras, "np": numpy, "tl": tripletloss}
    for test in doctest.DocTestFinder(recurse=False).find(SimpleNamespace(__doc__=docstring), where, module=False, globs=names):
        assert not doctest.DocTestRunner().run(test, out=said.append).failed, "".join(said)


@pytest.mark.filterwarnings("error::UserWarning", "ignore:Limiting steps_per_epoch", "ignore:Even though the `tf.config.experimental_run_functions_eagerly`")
@each_module
def test_examples_in_docstrings_give_what_they_say(name, short_trainings):
    """Without a warning."""
    for where, docstring, _, _ in docstrings(module_of(name)):
        run_examples(where, docstring)
    if name in ("plots", "demo"):
        importlib.import_module("matplotlib.pyplot").close("all")


def test_help_of_the_package_names_its_modules():
    named = re.findall(r"^- `([\w.]+)`: ", tripletloss.__doc__, re.M)
    assert sorted(one.removeprefix("tripletloss.") for one in named) == PUBLIC
    assert {one for one in named if hasattr(tripletloss, one)} == set(PUBLIC) - {"demo"}, "the others are imported by their whole name"
    run_examples("tripletloss", tripletloss.__doc__)


@pytest.mark.parametrize(("result", "fails"), [("1", False), ("2", True)])
def test_a_wrong_example_fails(result, fails):
    with pytest.raises(AssertionError) if fails else contextlib.nullcontext():
        run_examples("here", WHOLE.replace("\n1\n", f"\n{result}\n"))
