"""What the package is made from and with: actions in the workflows, requirements and their licences, no network."""

import re
import runpy
from configparser import ConfigParser
from importlib.metadata import distribution

import pytest
from children import run_together
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# As projects spell them: in SPDX, in classifiers, or freely.
PERMISSIVE = {
    *("Apache-2.0", "Apache 2.0", "Apache License 2.0", "Apache Software License"),
    *("0BSD", "BSD", "BSD-2-Clause", "BSD-3-Clause", "3-Clause BSD License", "BSD License"),
    *("MIT", "MIT License", "MIT-CMU", "Historical Permission Notice and Disclaimer (HPND)"),
    *("PSF-2.0", "Python Software Foundation License", "Zlib", "CC0-1.0", "ISC"),
}
# Read and accepted, as long as they state the same.
ACCEPTED = {
    "certifi": "Mozilla Public License 2.0 (MPL 2.0)",  # copyleft of its own files alone, which nobody changes here
    "namex": "",  # states nothing; its LICENSE file is the Apache License 2.0
}

TRAIN_WITHOUT_NETWORK = """
import sys

asked = []


def refuse(event, arguments):
    '''No Python code goes round an audit hook, and whoever catches the error is found out by the list.'''
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"):
        asked.append((event, arguments))
        raise OSError(f"{event} in a test without network")


sys.addaudithook(refuse)

import keras
import numpy as np
import tripletloss as tl

x = np.random.default_rng(0).normal(size=(20, 6)).astype("float32")
y = np.arange(20) % 5
model = keras.Sequential([keras.Input((6,)), tl.layers.L2Embedding(4)])
model.compile(optimizer="sgd", loss=tl.TripletLoss())
model.fit(x, y, batch_size=20, verbose=0)
embeddings = model.predict(x, verbose=0)
tl.metrics.retrieval_metrics(embeddings, y)
tl.plots.plot_distances(embeddings, y)
assert not asked, asked
"""


def unpinned(workflow):
    """What the text of a workflow uses by another name than a whole commit and, as a comment, its version."""
    used = re.findall(r"^[ -]*uses:[ ]*(.*?)[ ]*$", workflow, re.MULTILINE)
    return [one for one in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*", one)]


def gather(lines, extra, found):
    """Add (name, extra) of all that the requirements in `lines` bring into this environment to the set `found`."""
    for requirement in map(Requirement, lines):
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in found:
                found.add((name, wanted))
                gather(distribution(name).requires or [], wanted, found)


def stated_licence(metadata):
    """The SPDX expression; before there was one, the classifiers; before those, the free text's first line."""
    classified = [one.split(" :: ") for one in metadata.get_all("Classifier", [])]
    classifiers = [last for first, *_, last in classified if first == "License"]
    free = (metadata["License"] or "").strip().partition("\n")[0]
    return metadata["License-Expression"] or " AND ".join(classifiers) or free


def is_permissive(licence):
    return all(one in PERMISSIVE for one in re.split(" AND | OR ", licence))


@pytest.mark.parametrize(
    "used, pinned",
    [
        ("actions/checkout@v4", False),
        ("actions/checkout@" + "0" * 40, False),
        ("actions/checkout@" + "0" * 39 + " # v4.2.2", False),
        ("actions/checkout@" + "0" * 40 + " # v4.2.2", True),
    ],
)
def test_a_name_that_can_be_moved_is_no_pin(used, pinned):
    assert unpinned(f"    steps:\n      - uses: {used}\n") == ([] if pinned else [used])


@pytest.mark.parametrize(
    "licence, permissive",
    [
        ("MIT", True),
        ("MIT AND BSD-3-Clause", True),
        ("MIT AND GPL-3.0-only", False),
        ("OSI Approved", False),
        ("", False),
    ],
)
def test_a_licence_is_permissive_in_all_its_parts(licence, permissive):
    assert is_permissive(licence) == permissive


@pytest.fixture(scope="module")
def settings(root):
    parser = ConfigParser()
    parser.read(root / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


def test_actions_are_pinned_to_a_commit(root):
    text = "\n".join(path.read_text(encoding="utf-8") for path in (root / ".github/workflows").iterdir())
    assert "uses:" in text
    assert unpinned(text) == []


def test_installed_distributions_agree_with_each_other():
    run_together([["-m", "pip", "--disable-pip-version-check", "check"]], seconds=120)


def test_lowest_versions_that_are_tested_are_the_bounds(settings, root):
    """Each bound is a plain `>=`, the same wherever the name stands, and `make test-lowest` installs just that."""
    lists = [name for name in settings if name.endswith("requirements") and name != "dev_requirements"]
    bounds = {line for name in lists for line in settings[name].split()}
    assert [line for line in bounds if not re.fullmatch(r"[\w-]+>=[\d.]+", line)] == []
    tested = runpy.run_path(str(root / "tools" / "lowest.py"))["lowest"](root / "settings.ini")
    assert {line.replace("==", ">=") for line in tested} == bounds
    assert len({Requirement(line).name for line in tested}) == len(tested)


def test_licences_of_what_is_needed_are_permissive(settings):
    lists = ("requirements", "metrics_requirements", "plots_requirements")
    found = set()
    gather([line for name in lists for line in settings[name].split()], "", found)
    stated = {name: stated_licence(distribution(name).metadata) for name, _ in found}
    assert {"keras", "tensorflow", "scikit-learn", "matplotlib"} < stated.keys()  # and what these need
    refused = {name: text for name, text in stated.items() if not is_permissive(text) and ACCEPTED.get(name) != text}
    assert not refused, refused


def test_no_network_is_asked_for():
    run_together([["-c", TRAIN_WITHOUT_NETWORK]], seconds=300, KERAS_BACKEND="tensorflow", MPLBACKEND="agg")
