"""Documents that no notebook makes: citation, changelog, contributing, issue forms."""

import re

import pytest

yaml = pytest.importorskip("yaml", reason="forms and citation are read with PyYAML: pip install 'tripletloss[dev]'")
FORMS = ["bug", "feature", "question"]


def parsed(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def as_numbers(version):
    return [int(part) for part in version.split(".")]


def test_citation_is_that_of_this_version(root, settings):
    citation = parsed(root / "CITATION.cff")
    assert (citation["title"], citation["version"]) == (settings["title"], settings["version"])
    assert citation["repository-code"] == settings["git_url"]
    assert citation["url"] == settings["doc_host"] + settings["doc_baseurl"]


def test_changelog_keeps_its_form(root, settings):
    """Unreleased first, then versions with their days, the newest first. That of the settings is the newest, or yet to come."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    first, *versions = re.findall(r"^## (.*)$", text, re.M)
    assert first == "[Unreleased]"
    assert [one for one in versions if not re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", one)] == []
    numbers = [as_numbers(one[1 : one.index("]")]) for one in versions]
    assert numbers == sorted(numbers, reverse=True)
    assert as_numbers(settings["version"]) >= max(numbers, default=[0])
    kinds = set(re.findall(r"^### (.*)$", text, re.M))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    links = re.findall(r"^\[(.*)\]: https://github\.com/\S+$", text[text.index("\n[Unreleased]: ") :], re.M)
    assert links == ["Unreleased", *(one[1 : one.index("]")] for one in versions)]


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "README.md"])
def test_every_target_named_is_one(root, document):
    text = (root / document).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|^\s*)make ([a-z][\w-]*)", text, re.M))
    targets = set(re.findall(r"^([a-z][\w -]*):", (root / "Makefile").read_text(encoding="utf-8"), re.M))
    assert named
    assert named <= {target for line in targets for target in line.split()}


@pytest.mark.parametrize("form", FORMS)
def test_an_issue_form_is_complete(root, form):
    """GitHub ignores a form that lacks one of these, without a word."""
    content = parsed(root / ".github" / "ISSUE_TEMPLATE" / f"{form}.yml")
    assert all(isinstance(content[key], str) for key in ("name", "description"))
    fields = [one for one in content["body"] if one["type"] != "markdown"]
    assert fields and all(one["type"] in {"input", "textarea", "dropdown", "checkboxes"} for one in fields)
    assert all(one["attributes"]["label"] and isinstance(one["validations"]["required"], bool) for one in fields)
    names = [one["id"] for one in fields]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[\w-]+", name) for name in names)


def test_issues_are_written_in_a_form(root, settings):
    config = parsed(root / ".github" / "ISSUE_TEMPLATE" / "config.yml")
    assert config["blank_issues_enabled"] is False
    (contact,) = config["contact_links"]
    assert contact["url"] == settings["doc_host"] + settings["doc_baseurl"] and contact["name"] and contact["about"]
    assert sorted(path.stem for path in (root / ".github" / "ISSUE_TEMPLATE").iterdir()) == sorted([*FORMS, "config"])


def test_the_snippet_of_the_bug_form_gives_the_number_beside_it(root, capsys):
    fields = {one.get("id"): one["attributes"] for one in parsed(root / ".github" / "ISSUE_TEMPLATE" / "bug.yml")["body"]}
    exec(fields["snippet"]["value"], {})
    expected, _, _ = fields["expected"]["placeholder"].partition(":")
    assert float(capsys.readouterr().out) == pytest.approx(float(expected), abs=1e-6)
