"""A file elsewhere that runs leave their ledgers' hashes in: shared, append-only, and at odds with what was forged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedflair.errors import DataError, PrivacyError
from fedflair.privacy.ledger import record as ledger
from fedflair.privacy.ledger.anchor import Anchor, anchored, read_anchor
from fedflair.privacy.mechanisms import CohortStats
from fedflair.training.verification import verify
from tests.privacy.ledgers import (
    ROUNDS,
    after,
    begun_run,
    finished_run,
    lines_of,
    released,
    reseal,
    resumed,
    save_checkpoint,
    small_config,
)

# With everybody in every cohort epsilon is a formula.
QUICK = small_config(cohort_size=400, noise_cohort_size=None)


@pytest.fixture
def anchor(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere" / "anchor.jsonl"


@pytest.fixture
def run(tmp_path: Path, anchor: Path) -> Path:
    return finished_run(tmp_path / "run", QUICK, anchor)


def problems(run: Path, anchor: Path) -> tuple[str, ...]:
    return verify(run, anchor, use_cache=True).problems


def test_each_line_of_the_ledger_is_left_in_it(run: Path, anchor: Path) -> None:
    heads = [line["hash"] for line in lines_of(run)]
    entries = [json.loads(line) for line in anchor.read_text().splitlines()]
    assert entries == [{"run": heads[0], "round": k, "head": head} for k, head in enumerate(heads)]
    assert problems(run, anchor) == ()


def test_rounds_done_again_are_recognised_and_other_ones_refused(run: Path, anchor: Path) -> None:
    before, whole = anchor.read_bytes(), (run / ledger.FILE_NAME).read_bytes()
    released(resumed(run, 2, QUICK, anchor=anchor), ROUNDS - 2)
    assert anchor.read_bytes() == before
    book = resumed(run, 2, QUICK, anchor=anchor)
    with pytest.raises(PrivacyError, match=r"another line for round 3 of this run .* a copy of it went on in another"):
        ledger.append(book, 2, CohortStats(1, 0, 0), {}, after(2))
    # Nothing was changed on the way: what was done first can be gone on with.
    assert (anchor.read_bytes(), (run / ledger.FILE_NAME).read_bytes()) == (before, whole)


def test_two_copies_of_a_run_that_go_on_apart_meet_there(tmp_path: Path, anchor: Path) -> None:
    begun = begun_run(tmp_path / "run", QUICK, anchor)
    copied = begun
    released(begun, 1)
    with pytest.raises(PrivacyError, match="another line for round 1 of this run"):
        ledger.append(copied, 0, CohortStats(7, 0, 0), {}, after(9))


def test_a_run_goes_on_with_the_anchor_it_began_with(run: Path, tmp_path: Path, anchor: Path) -> None:
    with pytest.raises(DataError, match="another: no such anchor"):
        resumed(run, 2, QUICK, anchor=tmp_path / "another")
    entries = anchor.read_text().splitlines(keepends=True)
    anchor.write_text("".join(entries[:2] + entries[3:]))
    with pytest.raises(PrivacyError, match="has nothing of round 2 of this run; name the anchor that the run began"):
        resumed(run, 3, QUICK, anchor=anchor)
    assert problems(run, anchor) == (f"{anchor}: has no line for round 2",)


def test_what_was_forged_as_a_whole_is_found_by_the_anchor_alone(run: Path, anchor: Path) -> None:
    lines = lines_of(run)
    lines[3]["realised_cohort"] = 399
    head = reseal(run, lines)[3]
    assert problems(run, None) == ()  # type: ignore[arg-type]
    (problem, *_) = problems(run, anchor)
    assert problem.startswith(f"{anchor}: has ")
    assert problem.endswith(f"... for round 3, where the ledger's line is {head[:16]}...")
    lines[0]["noise_seed_commitment"] = "0" * 64
    reseal(run, lines)
    assert f"{anchor}: has nothing of this run; line 1 of the ledger is another one, or another anchor" in " ".join(
        problems(run, anchor)
    )


def test_a_tail_that_was_cut_everywhere_is_found_by_the_anchor_alone(tmp_path: Path, anchor: Path) -> None:
    book = released(begun_run(tmp_path / "run", QUICK, anchor), 3)
    save_checkpoint(tmp_path / "run", book)
    cut = (tmp_path / "run" / ledger.FILE_NAME).read_bytes()
    released(book, 2)
    (tmp_path / "run" / ledger.FILE_NAME).write_bytes(cut)
    assert problems(tmp_path / "run", None) == ()  # type: ignore[arg-type]
    assert problems(tmp_path / "run", anchor) == (
        f"{anchor}: has 5 rounds of this run, and the ledger 3: lines miss at the end",
    )


def test_a_run_killed_before_its_last_line_was_anchored_is_sound_and_goes_on(tmp_path: Path, anchor: Path) -> None:
    book = released(begun_run(tmp_path / "run", QUICK, anchor), 2)
    save_checkpoint(tmp_path / "run", book)
    entries = anchor.read_bytes()
    released(book, 1)
    whole = anchor.read_bytes()
    # Cut short on a full disk, or not begun.
    for left in (entries, whole[:-9]):
        anchor.write_bytes(left)
        assert problems(tmp_path / "run", anchor) == ()
        released(resumed(tmp_path / "run", 2, QUICK, anchor=anchor), 1)
        assert anchor.read_bytes().splitlines()[-1] == whole.splitlines()[-1]
    assert problems(tmp_path / "run", anchor) == ()


def test_an_anchor_with_two_lines_for_a_round_says_so(run: Path, anchor: Path) -> None:
    entry = json.loads(anchor.read_text().splitlines()[2])
    with anchor.open("a") as file:
        file.write(json.dumps({**entry, "head": "0" * 64}) + "\n")
    assert problems(run, anchor) == (f"{anchor}: has two lines for round 2: two copies went on",)


def test_processes_share_an_anchor(anchor: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from fedflair.privacy.ledger.anchor import Anchor, anchored\n"
        "known = Anchor(Path(sys.argv[1]), sys.argv[2], {})\n"
        "for round_ in range(100):\n"
        "    known = anchored(known, round_, f'{sys.argv[2]}-{round_}')\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", script, str(anchor), name]) for name in ("a", "b", "a")]
    assert [child.wait(timeout=120) for child in children] == [0, 0, 0]
    assert len(anchor.read_text().splitlines()) == 200
    for name in ("a", "b"):
        found = read_anchor(anchor, name)
        assert found.heads == {round_: f"{name}-{round_}" for round_ in range(100)}
        assert (found.contradictions, found.num_damaged) == ((), 0)


def test_hostile_lines_are_passed_over(anchor: Path) -> None:
    known = anchored(Anchor(anchor, "a", {}), 0, "head")
    with anchor.open("ab") as file:
        file.write(b'\xff\n[]\n5\n{"run": "a"}\n{"run":"a","round":"x","head":1}\n')
        file.write(b'{"run":"a","round":true,"head":"y"}\n{"ru')
    known = anchored(known, 1, "next")
    assert known.heads == {0: "head", 1: "next"} == read_anchor(anchor, "a").heads
    assert known.num_damaged == 5


@pytest.mark.parametrize("kind", ["folder", "pipe", "nowhere"])
def test_what_cannot_be_an_anchor_is_one_line(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.write_text("")
        place /= "below"
    with pytest.raises(DataError, match=f"{place}: ") as caught:
        anchored(Anchor(place, "a", {}), 0, "head")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=f"{place}: "):
        read_anchor(place, "a")
