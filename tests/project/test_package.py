"""The wheel and the sdist, built and used far from the repository; what an import brings along; the demo's command.

And what a user sees of the package: its names are those of the reference, and `help` says of each what it is.
"""

import builtins
import doctest
import email
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from configparser import ConfigParser
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("package")  # what is built once is built by one process

MEASURE = """
import json, sys, time
import keras
before = set(sys.modules)
start = time.perf_counter()
import tripletloss
seconds = time.perf_counter() - start
print("RESULT" + json.dumps({
    "file": tripletloss.__file__,
    "version": tripletloss.__version__,
    "seconds": seconds,
    "backend": keras.backend.backend(),
    "all": sorted({name.split(".")[0] for name in sys.modules}),
    "added": sorted({name.split(".")[0] for name in set(sys.modules) - before}),
}))
"""
TRAIN = """
import numpy as np
import keras
import tripletloss as tl

x = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
model = keras.Sequential([keras.Input((6,)), tl.layers.L2Embedding(4)])
model.compile(optimizer="sgd", loss=tl.TripletLoss())
history = model.fit(tl.samplers.PKBatches(x, np.arange(40) % 5, 4, 3, seed=1), verbose=0)
assert np.isfinite(history.history["loss"]).all()
"""


def run(*command, where, **environment):
    settings = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "MPLBACKEND": "agg", **environment}
    return subprocess.run([sys.executable, *command], cwd=where, env=settings, capture_output=True, text=True)


def succeed(*command, where, **environment):
    child = run(*command, where=where, **environment)
    assert child.returncode == 0, child.stdout[-4000:] + child.stderr[-4000:]
    return child.stdout


@pytest.fixture(scope="module")
def source(root, tmp_path_factory):
    """A copy of what git tracks or would track, so that building leaves no trace in the repository."""
    if not (root / ".git").exists():
        pytest.skip("not a git checkout: no telling the sources from what was built")
    target = tmp_path_factory.mktemp("source") / "repository"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=root, capture_output=True, check=True
    )
    for path in filter(None, listed.stdout.decode().split("\0")):
        if (root / path).exists():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / path, target / path, follow_symlinks=False)
    return target


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    """The sdist, and the wheel that is built from it and from nothing else."""
    pytest.importorskip("build", reason="pip install 'tripletloss[dev]'")
    there = tmp_path_factory.mktemp("dist")
    at_hand = importlib.util.find_spec("setuptools") is not None
    succeed("-m", "build", *(["--no-isolation"] if at_hand else []), "--outdir", str(there), where=source)
    (wheel,), (sdist,) = there.glob("*.whl"), there.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """A folder to put on the path, with the wheel unpacked in it by pip."""
    there = tmp_path_factory.mktemp("site")
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    succeed(*pip, "--target", str(there), str(built[0]), where=there)
    return there


def measured(installed, where, backend):
    out = succeed("-c", MEASURE, where=where, PYTHONPATH=str(installed), KERAS_BACKEND=backend)
    return json.loads(out.split("RESULT")[1])


def test_wheel_holds_the_package_and_nothing_else(built, source):
    names = zipfile.ZipFile(built[0]).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tripletloss"}
    assert len(tops) == 2
    package = {name for name in names if name.startswith("tripletloss/")}
    modules = {f"tripletloss/{path.name}" for path in (source / "tripletloss").glob("*.py")}
    assert package == modules | {"tripletloss/py.typed"}
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
    assert {"setup.py", "pyproject.toml", "settings.ini", "README.md", "LICENSE", "CHANGELOG.md"} <= names
    assert "tripletloss/py.typed" in names


@pytest.mark.parametrize("backend, package", [("tensorflow", "tensorflow"), ("jax", "jax"), ("torch", "torch")])
def test_import_from_outside_the_repository(installed, tmp_path, backend, package, capsys):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    found = measured(installed, tmp_path, backend)
    assert found["file"].startswith(str(installed))
    assert found["backend"] == backend
    if backend != "tensorflow":
        assert "tensorflow" not in found["all"]
    foreign = {"matplotlib", "sklearn", "nbdev", "fastcore", "execnb", "PIL", "IPython", "pandas"}
    assert not foreign & set(found["added"])
    with capsys.disabled():
        print(f"\nimport tripletloss after import keras ({backend}): {found['seconds']:.3f} s")


def test_what_an_extra_brings_is_named(installed, tmp_path):
    """Without matplotlib `tripletloss.plots`, and without scikit-learn a search, say what to install."""
    hidden = "import sys; sys.modules.update({'matplotlib': None, 'matplotlib.pyplot': None, 'sklearn': None, 'sklearn.neighbors': None})"
    for line in ("tripletloss.plots", "tripletloss.metrics.retrieval_metrics([[0.0], [1.0]], [0, 0])"):
        child = run("-c", f"{hidden}\nimport tripletloss\n{line}", where=tmp_path, PYTHONPATH=str(installed))
        extra = "plots" if line.endswith("plots") else "metrics"
        assert "ImportError" in child.stderr and f"pip install 'tripletloss[{extra}]'" in child.stderr


def test_version_is_that_of_the_settings(installed, tmp_path, source):
    settings = ConfigParser()
    settings.read(source / "settings.ini", encoding="utf-8")
    out = succeed("-c", MEASURE, where=tmp_path, PYTHONPATH=str(installed))
    assert json.loads(out.split("RESULT")[1])["version"] == settings["DEFAULT"]["version"]


def test_trains_as_installed(installed, tmp_path):
    succeed("-c", TRAIN, where=tmp_path, PYTHONPATH=str(installed))


# The demo's command line.


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_demo_explains_itself(installed, tmp_path, arguments):
    out = succeed("-m", "tripletloss.demo", *arguments, where=tmp_path, PYTHONPATH=str(installed))
    assert "--images" in out
    assert "--output" in out


@pytest.mark.parametrize("content", ["nothing", "files only", "no such folder"])
def test_demo_names_a_folder_without_classes(installed, tmp_path, content):
    folder = tmp_path / "pictures"
    if content != "no such folder":
        folder.mkdir()
    if content == "files only":
        (folder / "note.txt").write_text("no class")
    child = run("-m", "tripletloss.demo", "--images", str(folder), where=tmp_path, PYTHONPATH=str(installed))
    assert child.returncode != 0
    assert "pictures" in child.stderr + child.stdout
    assert "Traceback" not in child.stderr


# What a user sees.

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = sorted(path.stem for path in (ROOT / "tripletloss").glob("*.py") if not path.stem.startswith("_"))
# Described in comments beside their parameters, which help does not show; no new ones.
DESCRIBED_IN_COMMENTS = {"deserialize", "get", "hinge", "serialize", "softplus"}


def module_of(name):
    """A module of the package; a skip where what it needs is not installed."""
    if name in ("plots", "demo"):
        pytest.importorskip("matplotlib", reason="pip install 'tripletloss[demo]'").use("agg")
        pytest.importorskip("sklearn", reason="pip install 'tripletloss[demo]'")
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


def test_the_reference_knows_every_public_module():
    assert sorted(names_by_module()) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_the_reference_lists_what_a_module_offers_and_no_more(name):
    assert sorted(names_by_module()[name]) == sorted(module_of(name).__all__)


def test_a_name_is_listed_once():
    times = Counter(name for names in names_by_module().values() for name in names)
    assert [name for name in times if times[name] > 1] == []


def test_dir_shows_what_a_user_wants_and_nothing_else():
    import tripletloss

    lazy_or_run = {"demo"}  # python -m tripletloss.demo
    assert dir(tripletloss) == sorted({*tripletloss.__all__, "__version__"})
    assert {name for name in tripletloss.__all__ if name in PUBLIC} == set(PUBLIC) - lazy_or_run
    listed = names_by_module()
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
    import keras

    import tripletloss

    functions = [function] if function else []
    functions += [one for one in vars(owner).values() if inspect.isfunction(one)] if owner else []
    signatures = [inspect.signature(one) for one in functions]
    if any(name in one.parameters or hasattr(one.return_annotation, name) for one in signatures):
        return True
    if owner and (hasattr(owner, name) or any(re.search(rf"self\.{name}\b", inspect.getsource(one)) for one in functions)):
        return True
    head, *rest = name.split(".")
    spaces = [vars(module), vars(tripletloss), {"keras": keras, "tripletloss": tripletloss}, vars(builtins)]
    for space in spaces:
        if head in space:
            value = space[head]
            for part in rest:
                value = getattr(value, part, None)
            return value is not None
    return False


@pytest.mark.parametrize("name", PUBLIC)
def test_a_docstring_names_only_what_exists(name):
    module = module_of(name)
    unknown = [
        f"{where}: {one}"
        for where, docstring, owner, function in docstrings(module)
        for one in names_within(docstring)
        if not resolves(one, module, owner, function)
    ]
    assert not unknown, "\n".join(unknown)


@pytest.mark.parametrize("name", PUBLIC)
def test_help_says_what_each_parameter_is(name):
    """In the docstring, as numpydoc."""
    missing = set()
    for public, value in public_objects(module_of(name)).items():
        if inspect.isclass(value) and "__init__" not in vars(value):
            continue  # a named tuple, or what inherits its arguments
        names = {each for each in inspect.signature(value).parameters if each not in ("args", "kwargs", "fn_kwargs")}
        if public == "Distance":
            continue  # to subclass, not to call
        described = {
            each.strip()
            for line in re.findall(r"^ *([\w, ]+)(?: : .*)?$", value.__doc__.partition("Parameters")[2], re.M)
            for each in line.split(",")
        }
        missing |= {public} if names - described else set()
    assert missing <= DESCRIBED_IN_COMMENTS
    assert DESCRIBED_IN_COMMENTS & set(public_objects(module_of(name))) <= missing, "these need not be listed any more"


@pytest.mark.parametrize("name", PUBLIC)
def test_examples_in_docstrings_give_what_they_say(name):
    module = module_of(name)
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    without = set()
    for public, value in public_objects(module).items():
        found = finder.find(value, public, module=module, globs=dict(vars(module)))
        without |= set() if any(test.examples for test in found) else {public}
        for test in found:
            said = []
            result = runner.run(test, out=said.append)
            assert not result.failed, "".join(said)
    if "matplotlib" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
    if name not in ("distances", "losses", "mining"):
        assert without <= {"Data"}, "each public name has an example"
