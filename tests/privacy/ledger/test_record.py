from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fedflair.errors import DataError, PrivacyError
from fedflair.privacy.accounting.accountants import PrivacyEvent, epsilon
from fedflair.privacy.ledger import record as ledger
from fedflair.privacy.ledger.verification import verify
from fedflair.privacy.mechanisms import CohortStats, Mechanism, PrivacyOptions, make_mechanism
from fedflair.runs.tensors import save_tensors
from fedflair.sampling import SamplerDescription
from tests.privacy.ledgers import COHORTS, ROUNDS, SEED, after, finished_run, small_mechanism


@pytest.fixture
def mechanism() -> Mechanism:
    return small_mechanism()


@pytest.fixture
def run(tmp_path: Path, mechanism: Mechanism) -> Path:
    return finished_run(tmp_path / "run", mechanism)


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
    options = PrivacyOptions("gaussian_moments_accountant", delta=1e-4, clipping_bound=0.25, noise_cohort_size=40)
    mechanism = make_mechanism(options, SamplerDescription("fixed", 20, 400), ROUNDS, SEED)
    assert mechanism.description["neighbouring"] == "replace_one"
    (tmp_path / "run").mkdir()
    book = ledger.create(tmp_path / "run", mechanism, SEED)
    ledger.append(book, 0, CohortStats(20, 0, 0), {}, after(0))
    line = json.loads(_lines(tmp_path / "run")[1])
    assert (line["sampling"], line["clipping_bound"], line["sensitivity"]) == ("fixed", 0.25, 0.5)


@pytest.mark.parametrize(("num_rounds", "releases"), [(1, 1), (3, 1), (4, 2), (6, 2)])
def test_rounds_begun_count_as_a_whole_release(num_rounds: int, releases: int) -> None:
    event = PrivacyEvent("gaussian", 2.0, 2, "poisson", 0.3)
    terms = {"rounds": 6, "min_separation": 3, "delta": 1e-5, "accountant": "rdp", "run_event": None}
    found = ledger.cumulative_epsilon({**terms, "event": asdict(event)}, num_rounds)
    assert found == {"epsilon": epsilon(replace(event, count=releases), 1e-5, "rdp"), "run_epsilon": None}


def test_a_sound_ledger_verifies(run: Path) -> None:
    found = verify(run)
    assert found.problems == ()
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
        (lambda x: x[:-1], "ends after 5 rounds, but the checkpoint has 6"),
        (lambda x: [*x[:-1], x[-1][:-20]], "ends after 5 rounds, but the checkpoint has 6"),
        (lambda x: [*x[:4], x[3], *x[4:]], "line 5 is repeated or out of order"),
        (lambda x: [*x[:3], x[4], x[3], *x[5:]], "line 4 does not follow"),
    ],
)
def test_what_was_done_to_a_ledger_is_found(run: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    (run / ledger.FILE_NAME).write_text("".join(damage(_lines(run))))
    problems = verify(run, use_cache=True).problems
    assert problems[0].startswith(message), problems


def _forge(run: Path, number: int, **changes: object) -> None:
    """Changes one line and mends the hashes of all lines, as somebody with this package could."""
    head, text = ledger.ORIGIN, ""
    for index, line in enumerate(_lines(run)):
        parsed = {k: v for k, v in json.loads(line).items() if k not in ("previous", "hash")}
        sealed, head = ledger._sealed({**parsed, **(changes if index == number else {})}, head)
        text += sealed
    (run / ledger.FILE_NAME).write_text(text)


@pytest.mark.parametrize(
    ("number", "changes", "message"),
    [
        (4, {"epsilon": 0.5}, "line 5 has epsilon 0.5, which should be "),
        (4, {"noise_std": 0.1}, "line 5 has noise_std 0.1"),
        (4, {"clipping_bound": 0.05}, "line 5 has sensitivity"),
        (4, {"sampling": "fixed"}, "line 5 has sampling fixed"),
        (4, {"generator": {"counter": 3, "fingerprint": "0" * 16}}, "line 5 was not drawn from the run's noise seed"),
        (4, {"generator": None}, "line 5 lacks a field"),
        (0, {"noise_std": 0.1}, "line 1 has noise std 0.1"),
        (0, {"population": 4000}, "line 1 has sampling rate"),
        (0, {"rounds": 60}, "line 1 has number of releases"),
        (0, {"noise_seed_commitment": "0" * 64}, "line 1 belongs to another noise seed"),
    ],
)
def test_a_forged_ledger_still_has_to_add_up(run: Path, number: int, changes: dict[str, object], message: str) -> None:
    _forge(run, number, **changes)
    problems = verify(run, use_cache=True).problems
    assert any(message in problem for problem in problems), problems


def test_replayed_noise_is_found_without_the_seed(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    generator = json.loads(_lines(run)[3])["generator"]
    _forge(run, 5, generator={**generator, "counter": 4})
    assert verify(run, use_cache=True).problems == ("line 6 repeats the noise of round 2",)


def test_a_round_can_be_neither_skipped_nor_repeated(tmp_path: Path, mechanism: Mechanism) -> None:
    book = ledger.create(tmp_path, mechanism, SEED)
    with pytest.raises(PrivacyError, match="round 1 cannot follow 0 rounds"):
        ledger.append(book, 1, CohortStats(20, 0, 0), {}, after(1))
    book = ledger.append(book, 0, CohortStats(20, 0, 0), {}, after(0))
    with pytest.raises(PrivacyError, match="round 0 cannot follow 1 rounds"):
        ledger.append(book, 0, CohortStats(20, 0, 0), {}, after(0))
    with pytest.raises(DataError, match="has a ledger already"):
        ledger.create(tmp_path, mechanism, SEED)
    with pytest.raises(PrivacyError, match="it ends after round 0, but the checkpoint has 2 rounds"):
        ledger.resume(tmp_path, 2, mechanism, SEED)


def test_resuming_writes_the_same_bytes_again_wherever_the_kill_cut(run: Path, mechanism: Mechanism) -> None:
    path = run / ledger.FILE_NAME
    whole = path.read_bytes()
    (run / "summary.json").unlink()
    ends = [end for end in range(len(whole)) if whole[end : end + 1] == b"\n"]
    save_tensors(run / "checkpoints" / "last.safetensors", {}, {"round": 2, "noise_seed": str(SEED)})
    cuts = range(ends[2] + 1, len(whole) + 1, 41)
    for cut in [*cuts, *(end for end in ends[3:]), *(end + 1 for end in ends[3:])]:
        path.write_bytes(whole[:cut])
        assert verify(run, use_cache=True).problems == ()
        book = ledger.resume(run, 2, mechanism, SEED)
        for round_ in range(2, ROUNDS):
            book = ledger.append(book, round_, CohortStats(COHORTS[round_], 0, 0), {}, after(round_))
        assert path.read_bytes() == whole
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_ledger_cut_before_the_checkpoint_is_never_continued(run: Path, mechanism: Mechanism) -> None:
    path = run / ledger.FILE_NAME
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:cut])
        with pytest.raises((PrivacyError, DataError)):
            ledger.resume(run, ROUNDS, mechanism, SEED)
        with suppress(DataError):
            assert verify(run, use_cache=True).problems
        assert path.read_bytes() == whole[:cut]


def test_resuming_with_other_options_or_another_seed_is_refused(run: Path, mechanism: Mechanism) -> None:
    with pytest.raises(DataError, match="another noise seed"):
        ledger.resume(run, 3, mechanism, SEED + 1)
    other = PrivacyOptions("gaussian_moments_accountant", delta=1e-4, noise_cohort_size=40, epsilon=4.0)
    made = make_mechanism(other, SamplerDescription("poisson", 20, 400), ROUNDS, SEED)
    with pytest.raises(DataError, match="other privacy options"):
        ledger.resume(run, 3, made, SEED)


def test_missing_ledgers_are_named(tmp_path: Path, mechanism: Mechanism) -> None:
    with pytest.raises(DataError, match="no such ledger"):
        verify(tmp_path)
    with pytest.raises(DataError, match="no such ledger"):
        ledger.resume(tmp_path, 0, mechanism, SEED)


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_disk_stops_the_run(tmp_path: Path, mechanism: Mechanism) -> None:
    book = ledger.create(tmp_path, mechanism, SEED)
    book.path.unlink()
    book.path.symlink_to("/dev/full")
    with pytest.raises(DataError, match="cannot be written"):
        ledger.append(book, 0, CohortStats(20, 0, 0), {}, after(0))


def test_a_run_killed_at_any_instant_verifies_and_ends_like_one_never_killed(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_run.py")
    ledgers, outputs = [], []
    for kills in (0, 30):
        folder = tmp_path / str(kills)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, str(script), str(folder), "30", str(kills)],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        outputs.append(done.stdout.split("\n")[:-1])
        ledgers.append((folder / ledger.FILE_NAME).read_bytes())
        assert verify(folder, use_cache=True).problems == ()
    # Each output line is a number of rounds alone: no problem was found after any kill.
    assert all(line.isdecimal() for line in outputs[1])
    assert len(outputs[1]) >= 15
    assert len(set(outputs[1])) >= 3
    assert ledgers[0] == ledgers[1]
