"""What the package is made from and with: actions in the workflows, requirements and their licences."""

import re
import runpy
from importlib.metadata import distribution

import pytest
from checkout import run_python
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


COMMIT = "actions/checkout@" + "0" * 40


@pytest.mark.parametrize("used, pinned", [
    ("actions/checkout@v4", False),
    (COMMIT, False),
    (COMMIT[:-1] + " # v4.2.2", False),
    (COMMIT + " # v4.2.2", True),
])  # fmt: skip
def test_a_name_that_can_be_moved_is_no_pin(used, pinned):
    assert unpinned(f"    steps:\n      - uses: {used}\n") == ([] if pinned else [used])


@pytest.mark.parametrize("licence, permissive", [
    ("MIT", True),
    ("MIT AND BSD-3-Clause", True),
    ("MIT AND GPL-3.0-only", False),
    ("OSI Approved", False),
    ("", False),
])  # fmt: skip
def test_a_licence_is_permissive_in_all_its_parts(licence, permissive):
    assert is_permissive(licence) == permissive


def test_actions_are_pinned_to_a_commit(root):
    text = "\n".join(path.read_text(encoding="utf-8") for path in (root / ".github/workflows").iterdir())
    assert "uses:" in text
    assert unpinned(text) == []


def test_installed_distributions_agree_with_each_other(root):
    run_python(["-m", "pip", "--disable-pip-version-check", "check"], root)


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
