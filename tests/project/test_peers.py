"""The peers' stored answers are complete, and ours, but where the table of mappings says why not."""

import csv
import functools

import pytest

from benchmarks import peers

pytestmark = pytest.mark.xdist_group("peers")  # what is computed once is so by one process

LIBRARIES = sorted(peers.MAPPINGS)


def cases(library):
    """Each call on each of its batches: the mapping, the batch's name, and the key of the stored answer."""
    for mapping in peers.MAPPINGS[library]:
        for name in mapping.batches:
            yield mapping, name, (mapping.call, mapping.miner, mapping.given, name)


OURS = {}  # by call and batch: several libraries have the same


@functools.cache
def compared(library):
    """Of each case what the peer answered and what the package does."""
    theirs, batches, rows = peers.stored(library), peers.batches(), []
    for mapping, name, key in cases(library):
        call = peers.own_call(mapping), mapping.ours.get("average"), mapping.unit_rows, name
        if call not in OURS:
            OURS[call] = peers.own_value(mapping, batches[name])
        rows.append((mapping, name, theirs[key], OURS[call]))
    return rows


@pytest.mark.parametrize("library", LIBRARIES)
def test_answers_are_complete(library):
    """One stored answer for each call and batch, and none that the table does not know."""
    with open(peers.RESULTS / f"peers-{library}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [tuple(row[name] for name in peers.KEY) for row in rows] == [key for *_, key in cases(library)]
    assert len(peers.stored(library)) == len(rows)  # no two calls are taken for one
    assert {row["library"] for row in rows} == {library}
    assert all(row["version"] for row in rows)


@pytest.mark.parametrize("library", LIBRARIES)
def test_their_answer_is_ours(library):
    for mapping, name, theirs, ours in compared(library):
        if not mapping.reason(name):
            assert peers.agree(theirs, ours), f"{mapping.call} {mapping.miner} on {name}: {theirs}, here {ours}"


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_reason_to_differ_shows(library):
    """A reason that the table gives for a call makes a difference on one of its batches at least; rounding need not."""
    claimed = {(m, mapping.reason(name)) for m, mapping in enumerate(peers.MAPPINGS[library]) for name in mapping.batches}
    shown = {
        (peers.MAPPINGS[library].index(mapping), mapping.reason(name))
        for mapping, name, theirs, ours in compared(library)
        if not peers.agree(theirs, ours)
    }
    assert not [(m, reason) for m, reason in claimed - shown if reason not in ("", "ties")]


def test_reasons_are_named():
    given = {mapping.reason(name) for library in LIBRARIES for mapping, name, _ in cases(library)}
    assert given - {""} == set(peers.REASONS)


def test_peers_agree_with_the_worked_numbers():
    """By hand, on nine points of a line: 16 over 26 triplets; 165 over the 57 with a loss; 33 over nine anchors."""
    addons, sentences = peers.stored("tensorflow-addons"), peers.stored("sentence-transformers")
    assert addons["TripletSemiHardLoss()", "", "batch", "line"] == pytest.approx(16 / 26, abs=1e-6)
    assert sentences["BatchAllTripletLoss(model, margin=1.0)", "", "batch", "line"] == pytest.approx(165 / 57, abs=1e-6)
    assert addons["TripletHardLoss()", "", "batch", "line"] == pytest.approx(33 / 9, abs=1e-6)


def test_a_peer_runs():
    """The program that stored the answers, on a peer that may be at hand."""
    pytest.importorskip("torch", reason="PyTorch is the peer that is run, and is not installed")
    theirs = peers.stored("torch")
    for row in peers.answers("torch"):
        assert peers.agree(float(row["value"]), theirs[tuple(row[name] for name in peers.KEY)])
