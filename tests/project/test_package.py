"""The wheel and the sdist, built and used far from the repository; what an import brings along; the demo's command."""

import email
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser

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
