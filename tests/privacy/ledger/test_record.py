from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fedflair.errors import DataError, PrivacyError
from fedflair.privacy.accounting.accountants import epsilon
from fedflair.privacy.ledger import older
from fedflair.privacy.ledger import record as ledger
from fedflair.privacy.mechanisms import CohortStats, Mechanism
from fedflair.runs.tensors import save_tensors
from fedflair.training.verification import verify
from tests import prepared
from tests.privacy.ledger import killed_run
from tests.privacy.ledgers import (
    ROUNDS,
    SEED,
    after,
    begun_run,
    facts_of,
    finished_run,
    lines_of,
    mechanism_of,
    released,
    reseal,
    resumed,
    small_config,
    small_mechanism,
)

EVERYBODY = small_config(cohort_size=400, noise_cohort_size=None)


@pytest.fixture
def mechanism() -> Mechanism:
    return small_mechanism()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return finished_run(tmp_path / "run")


@pytest.fixture
def quick_run(tmp_path: Path) -> Path:
    """With everybody in every cohort, whose epsilon is a formula."""
    return finished_run(tmp_path / "run", EVERYBODY)


def test_a_line_says_what_its_round_released(run: Path, mechanism: Mechanism) -> None:
    lines = [json.loads(line) for line in (run / ledger.FILE_NAME).read_text().splitlines()]
    assert [line.get("round") for line in lines] == [None, 0, 1, 2, 3, 4, 5]
    last = lines[-1]
    assert (last["sampling"], last["expected_cohort"], last["realised_cohort"]) == ("poisson", 20, 19)
    assert last["clipping_bound"] == last["sensitivity"] == 0.1
    assert last["noise_std"] == mechanism.noise_std({}, 0)
    assert last["generator"]["counter"] == 5
    assert last["epsilon"] == mechanism.description["epsilon"] == pytest.approx(2.0, rel=1e-4)
    assert last["run_epsilon"] == mechanism.description["run_epsilon"]
    epsilons = [line["epsilon"] for line in lines[1:]]
    assert epsilons == sorted(set(epsilons))
    assert stat.S_IMODE((run / ledger.FILE_NAME).stat().st_mode) == 0o600
    assert str(SEED) not in (run / ledger.FILE_NAME).read_text()


def test_a_replaced_client_moves_the_sum_by_twice_the_bound(tmp_path: Path) -> None:
    book = begun_run(tmp_path / "run", small_config(cohort_sampling="fixed", central_privacy_clipping_bound=0.25))
    assert book.mechanism.description["neighbouring"] == "replace_one"
    released(book, 1)
    line = json.loads(_lines(tmp_path / "run")[1])
    assert (line["sampling"], line["clipping_bound"], line["sensitivity"]) == ("fixed", 0.25, 0.5)


@pytest.mark.parametrize(("num_rounds", "releases"), [(1, 1), (3, 1), (4, 2), (6, 2)])
def test_rounds_begun_count_as_a_whole_release(num_rounds: int, releases: int) -> None:
    options = {"central_privacy_mechanism": "banded_matrix_factorization", "min_separation": 3, "accountant": "rdp"}
    mechanism = mechanism_of(small_config(**options, noise_cohort_size=None))
    event = mechanism.event(6)
    assert event is not None and (event.count, event.sampling_rate) == (2, 0.15)
    expected = epsilon(replace(event, count=releases), 1e-4, "rdp")
    for found in ledger.cumulative_epsilon(mechanism, num_rounds).values():
        assert found == pytest.approx(expected, rel=1e-12)
    terms = {"rounds": 6, "min_separation": 3, "delta": 1e-4, "accountant": "rdp", "event": asdict(event)}
    assert older.epsilons({**terms, "run_event": asdict(event)}, num_rounds)["epsilon"] == expected


def test_cohorts_that_rotate_are_of_one_size_and_held_to_their_separation(tmp_path: Path) -> None:
    config = small_config(central_privacy_mechanism="tree_aggregation", num_buffers=2)
    book = released(begun_run(tmp_path / "run", config), 2)
    said = [book.terms[name] for name in ("sampling", "min_separation", "run_min_separation")]
    assert said == ["rotating", 10, 10]
    save_tensors(tmp_path / "run" / "checkpoints" / "last.safetensors", {}, facts_of(book))
    found = verify(tmp_path / "run")
    assert found.problems == ("line 3 has realised_cohort 17, which should be 20",)


def test_a_sound_ledger_verifies(run: Path) -> None:
    found = verify(run)
    assert found.problems == ()
    (note,) = found.notes
    assert note.startswith("The run's store is not at nowhere.hdf5: that it has 400 clients, and how many of them each")
    assert (found.num_rounds, found.simulated) == (ROUNDS, True)
    assert found.epsilon == pytest.approx(2.0, rel=1e-4)


def _lines(run: Path) -> list[str]:
    return (run / ledger.FILE_NAME).read_text().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda x: [*x[:3], x[3].replace('"realised_cohort":0', '"realised_cohort":9'), *x[4:]], "line 4 was edited"),
        (lambda x: [*x[:6], x[6].replace('"realised_cohort":19', '"realised_cohort":9')], "line 7 was edited"),
        (lambda x: [*x[:3], x[3].replace(",", ", ", 1), *x[4:]], "line 4 was edited"),
        (lambda x: [*x[:3], "{}\n", *x[4:]], "line 4 is not a line of a ledger"),
        (lambda x: [*x[:3], x[3][:50] + "\n", *x[4:]], "line 4 is not JSON"),
        (lambda x: [*x[:3], *x[4:]], "line 4 does not follow: lines miss"),
        (lambda x: x[:-1], "ends after 5 rounds, but last.safetensors has 6"),
        (lambda x: [*x[:-1], x[-1][:-20]], "ends after 5 rounds, but last.safetensors has 6"),
        (lambda x: [*x[:4], x[3], *x[4:]], "line 5 is repeated or out of order"),
        (lambda x: [*x[:3], x[4], x[3], *x[5:]], "line 4 does not follow"),
    ],
)
def test_what_was_done_to_a_ledger_is_found(run: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    (run / ledger.FILE_NAME).write_text("".join(damage(_lines(run))))
    problems = verify(run, use_cache=True).problems
    assert problems[0].startswith(message), problems


def test_a_round_can_be_neither_skipped_nor_repeated(tmp_path: Path) -> None:
    book = begun_run(tmp_path, small_config())
    with pytest.raises(PrivacyError, match="round 1 cannot follow 0 rounds"):
        ledger.append(book, 1, CohortStats(20, 0, 0), {}, after(1))
    book = ledger.append(book, 0, CohortStats(20, 0, 0), {}, after(0))
    with pytest.raises(PrivacyError, match="round 0 cannot follow 1 rounds"):
        ledger.append(book, 0, CohortStats(20, 0, 0), {}, after(0))
    with pytest.raises(DataError, match="has a ledger already"):
        ledger.create(tmp_path, book.mechanism, SEED, "digest")
    with pytest.raises(PrivacyError, match="it ends after round 0, but the checkpoint has 2 rounds"):
        resumed(tmp_path, 2)


def test_resuming_writes_the_same_bytes_again_wherever_the_kill_cut(quick_run: Path) -> None:
    run = quick_run
    path = run / ledger.FILE_NAME
    whole = path.read_bytes()
    (run / "summary.json").unlink()
    ends = [end for end in range(len(whole)) if whole[end : end + 1] == b"\n"]
    facts = facts_of(resumed(run, 2, EVERYBODY))
    save_tensors(run / "checkpoints" / "last.safetensors", {}, facts)
    cuts = range(ends[2] + 1, len(whole) + 1, 97)
    for cut in [*cuts, *(end for end in ends[3:]), *(end + 1 for end in ends[3:])]:
        path.write_bytes(whole[:cut])
        assert verify(run, use_cache=True).problems == ()
        book = resumed(run, 2, EVERYBODY)
        # Whole lines stay until they are done again.
        assert path.read_bytes() == whole[: whole[:cut].rfind(b"\n") + 1]
        released(book, ROUNDS - 2)
        assert path.read_bytes() == whole
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_round_done_again_that_comes_out_otherwise_takes_the_place_of_what_followed(run: Path) -> None:
    book = resumed(run, 2)
    book = ledger.append(book, 2, CohortStats(0, 0, 0), {}, after(2))
    assert len(lines_of(run)) == 1 + ROUNDS
    # As on a GPU, whose sum may have other last bits.
    book = ledger.append(book, 3, CohortStats(25, 0, 0), {}, after(17))
    assert [line["hash"] for line in lines_of(run)][-1] == book.head
    assert len(lines_of(run)) == 1 + 4
    assert (run / ledger.FILE_NAME).stat().st_mode & 0o777 == 0o600
    released(book, 2)
    assert len(lines_of(run)) == 1 + ROUNDS


def test_a_damaged_tail_is_dropped_and_a_file_that_others_could_read_closed(run: Path) -> None:
    path = run / ledger.FILE_NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] + b"x" * 19 + b"\n")
    path.chmod(0o644)
    assert any("can be read by others" in note for note in verify(run, use_cache=True).notes)
    resumed(run, 3)
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:-1])
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_ledger_cut_before_the_checkpoint_is_never_continued(quick_run: Path) -> None:
    run = quick_run
    path = run / ledger.FILE_NAME
    whole, mechanism = path.read_bytes(), mechanism_of(EVERYBODY)
    for cut in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:cut])
        with pytest.raises((PrivacyError, DataError)):
            resumed(run, ROUNDS, EVERYBODY, mechanism=mechanism)
        with suppress(DataError):
            assert verify(run, use_cache=True).problems
        assert path.read_bytes() == whole[:cut]


def test_a_ledger_that_is_not_the_checkpoints_is_never_continued(run: Path) -> None:
    # Each of them sound by itself, and of the same seed.
    lines = lines_of(run)
    lines[3]["generator"]["binding"] = "0" * 32
    head = lines[3]["hash"]
    reseal(run, lines)
    with pytest.raises(PrivacyError, match="line 4 is not the one that the checkpoint was written with"):
        resumed(run, 3, head=head)
    with pytest.raises(PrivacyError, match="line 4 is not the one that the checkpoint was written with"):
        resumed(run, 3, head="None")


def test_resuming_with_other_options_or_another_seed_is_refused(run: Path) -> None:
    with pytest.raises(DataError, match=r"another noise seed \(line 1 has noise_seed_commitment "):
        resumed(run, 3, noise_seed=SEED + 1)
    with pytest.raises(DataError, match=r"other privacy options or .* \(line 1 has epsilon 1.99"):
        resumed(run, 3, mechanism=mechanism_of(small_config(central_epsilon=4.0)))
    with pytest.raises(DataError, match=r"\(line 1 has provenance "):
        resumed(run, 3, provenance="0" * 64)


@pytest.mark.parametrize("version", [1, 2])
def test_a_ledger_of_an_earlier_version_is_not_continued(run: Path, version: int) -> None:
    lines = lines_of(run)
    lines[0]["version"] = version
    reseal(run, lines)
    with pytest.raises(PrivacyError, match=rf"older fedflair, whose ledger \(version {version}\) is not bound"):
        resumed(run, 3)


def test_missing_ledgers_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such ledger"):
        verify(tmp_path)
    with pytest.raises(DataError, match="no such ledger"):
        ledger.resume(tmp_path, 0, small_mechanism(), SEED, "digest", "head")


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_disk_stops_the_run(tmp_path: Path) -> None:
    book = begun_run(tmp_path, small_config())
    book.path.unlink()
    book.path.symlink_to("/dev/full")
    with pytest.raises(DataError, match="cannot be written"):
        ledger.append(book, 0, CohortStats(20, 0, 0), {}, after(0))


def test_a_run_killed_at_any_instant_verifies_and_ends_like_one_never_killed(tmp_path: Path) -> None:
    ledgers, outputs = [], []
    for kills in (0, 30):
        folder = tmp_path / str(kills)
        folder.mkdir()
        done = prepared.run([str(folder), "30", str(kills)], through=killed_run.main)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.split("\n")[:-1])
        ledgers.append((folder / ledger.FILE_NAME).read_bytes())
        assert verify(folder, use_cache=True).problems == ()
    # Each output line is a number of rounds alone: no problem was found after any kill.
    assert all(line.isdecimal() for line in outputs[1])
    assert len(outputs[1]) >= 15
    assert len(set(outputs[1])) >= 3
    assert ledgers[0] == ledgers[1]
