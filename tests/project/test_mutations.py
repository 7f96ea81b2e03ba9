"""`make mutations` takes its time; this says at once when the code has moved away from under a mutation."""

import ast

import mutations
import pytest
from mutations import MUTATIONS, NOTHING, Mutation, broken, caught_by

TESTS = ["tests/backends/test_samplers.py"]  # which compute next to nothing


def test_each_mutation_fits_one_place_and_changes_it():
    texts = [broken(mutation) for mutation in MUTATIONS]
    assert len(set(texts)) == len(MUTATIONS), "two mutations do the same"
    assert broken(NOTHING) not in texts
    for module, text in texts:
        whole = (mutations.ROOT / "tripletloss" / f"{module}.py").read_text(encoding="utf-8")
        assert text != ast.unparse(ast.parse(whole))
        compile(text, module, "exec")


@pytest.mark.parametrize(("old", "places"), [("no_such_name(_1)", 0), ("ops.where(_1, _2, _3)", "[1-9][0-9]+")])
def test_a_mutation_that_fits_no_place_or_several_is_refused(old, places):
    with pytest.raises(ValueError, match=f"'what' fits {places} places, not one"):
        broken(Mutation("what", old, "None"))


@pytest.mark.every
def test_a_mutation_is_caught_and_one_that_changes_nothing_survives():
    same_plan = Mutation("every epoch the same plan", "range(_1, _2)", "range(_1, min(_2, 0))", "set_epoch")
    assert caught_by(same_plan, TESTS).startswith(TESTS[0])
    assert caught_by(NOTHING, TESTS) is None
