"""What several tests of the project need: the settings, and the package as pip installs it."""

import importlib.util
from configparser import ConfigParser

import pytest
from checkout import copy_of, run_python


@pytest.fixture(scope="session")
def settings(root):
    """Of settings.ini."""
    parser = ConfigParser()
    parser.read(root / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


@pytest.fixture(scope="session")
def built(root, tmp_path_factory):
    """The sdist, and the wheel that is built from it and from nothing else; of a copy, since building leaves traces."""
    pytest.importorskip("build", reason="wheel and sdist are built with the package build: pip install 'tripletloss[dev]'")
    source, there = copy_of(root, tmp_path_factory.mktemp("source") / root.name), tmp_path_factory.mktemp("dist")
    at_hand = ["--no-isolation"] if importlib.util.find_spec("setuptools") else []
    run_python(["-m", "build", *at_hand, "--outdir", there], source)
    (wheel,), (sdist,) = there.glob("*.whl"), there.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="session")
def installed(built, tmp_path_factory):
    """A folder to put on the path, with the wheel unpacked in it by pip."""
    there = tmp_path_factory.mktemp("site")
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    run_python([*pip, "--target", there, built[0]], there)
    return there
