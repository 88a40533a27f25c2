"""What a ledger says is checked field by field, and each check is seen to trip by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedflair.errors import DataError, PrivacyError
from fedflair.privacy.ledger import record as ledger
from fedflair.privacy.ledger.verification import verify
from fedflair.privacy.mechanisms import CohortStats, Mechanism, PrivacyOptions, make_mechanism
from fedflair.privacy.mechanisms.noise import noise_fingerprint
from fedflair.runs.tensors import save_tensors
from fedflair.sampling import SamplerDescription
from tests.privacy.ledgers import COHORTS, ROUNDS, SEED, after, finished_run, small_mechanism

Line = dict[str, Any]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return finished_run(tmp_path / "run", small_mechanism())


def lines_of(run: Path) -> list[Line]:
    return [json.loads(line) for line in (run / ledger.FILE_NAME).read_text().splitlines()]


def reseal(run: Path, lines: list[Line], previous: Callable[[int, str], str] = lambda number, head: head) -> None:
    """Writes the lines with hashes that fit. previous: what a line says of the one before, given its number."""
    head, text = ledger.ORIGIN, ""
    for number, line in enumerate(lines):
        told = {name: value for name, value in line.items() if name not in ("previous", "hash")}
        sealed, head = ledger._sealed(told, previous(number, head))
        text += sealed
    (run / ledger.FILE_NAME).write_text(text)


def problems(run: Path) -> tuple[str, ...]:
    return verify(run, use_cache=True).problems


def test_a_line_that_names_another_line_before_it_does_not_follow(run: Path) -> None:
    # Every line's own hash fits, its round and its numbers too.
    reseal(run, lines_of(run), lambda number, head: "0" * 63 + "1" if number == 4 else head)
    assert problems(run) == ("line 5 does not follow from the line before (round 3)",)
    with pytest.raises(PrivacyError, match="line 5 does not follow from the line before, but the checkpoint has 6"):
        ledger.resume(run, ROUNDS, small_mechanism(), SEED)


def test_a_line_cut_out_is_missed_on_resuming_whatever_its_hashes_say(run: Path) -> None:
    lines = lines_of(run)
    reseal(run, [*lines[:3], *lines[4:]])
    with pytest.raises(PrivacyError, match="line 4 does not follow from the line before, but the checkpoint has 5"):
        ledger.resume(run, 5, small_mechanism(), SEED)


def test_noise_of_another_round_is_found_by_its_counter_alone(run: Path) -> None:
    lines = lines_of(run)
    # With the fingerprint that belongs to its round: only the counter is wrong.
    lines[4]["generator"]["counter"] = 17
    reseal(run, lines)
    assert problems(run) == ("line 5 has noise of round 17, which should be 3",)


def test_noise_of_another_seed_is_found_by_its_fingerprint_alone(run: Path) -> None:
    lines = lines_of(run)
    lines[4]["generator"]["fingerprint"] = noise_fingerprint(SEED + 1, 3, lines[4]["generator"]["binding"])
    reseal(run, lines)
    assert problems(run) == ("line 5 was not drawn from the run's noise seed",)


@pytest.mark.parametrize("promised", [ROUNDS - 1, ROUNDS + 1])
def test_a_summary_of_other_rounds_is_found_without_a_checkpoint(run: Path, promised: int) -> None:
    (run / "checkpoints" / "last.safetensors").unlink()
    (run / "summary.json").write_text(json.dumps({"rounds": promised}))
    assert problems(run) == (f"has {ROUNDS} rounds, but the run's summary has {promised}",)


def test_a_checkpoint_of_more_rounds_is_found_without_a_summary(run: Path) -> None:
    (run / "summary.json").unlink()
    facts = {"round": ROUNDS + 1, "noise_seed": str(SEED)}
    save_tensors(run / "checkpoints" / "last.safetensors", {}, facts)
    assert problems(run) == (f"ends after {ROUNDS} rounds, but the checkpoint has {ROUNDS + 1}: lines miss at the end",)
    save_tensors(run / "checkpoints" / "last.safetensors", {}, {**facts, "round": ROUNDS - 1})
    assert problems(run) == ()


def made(sampling: str, **options: Any) -> Mechanism:
    kind: Any = sampling
    wanted = PrivacyOptions(**{"mechanism": "gaussian_moments_accountant", "delta": 1e-4, **options})
    return make_mechanism(wanted, SamplerDescription(kind, 20, 400), ROUNDS, SEED)


def test_a_cohort_of_fixed_size_has_that_size(tmp_path: Path) -> None:
    folder, mechanism = tmp_path / "run", made("fixed")
    folder.mkdir()
    book = ledger.create(folder, mechanism, SEED)
    for round_ in range(ROUNDS):
        book = ledger.append(book, round_, CohortStats(20, 0, 0), {}, after(round_))
    assert problems(folder) == ()
    lines = lines_of(folder)
    lines[3]["realised_cohort"] = 21
    reseal(folder, lines)
    assert problems(folder) == ("line 4 has realised_cohort 21, which should be 20",)


def test_a_cohort_of_coins_may_have_any_size(run: Path) -> None:
    lines = lines_of(run)
    lines[3]["realised_cohort"] = COHORTS[2] + 9
    reseal(run, lines)
    assert problems(run) == ()


@pytest.mark.parametrize("field", ["epsilon", "run_epsilon", "noise_std", "sensitivity", "clipping_bound"])
@pytest.mark.parametrize(("factor", "found"), [(1 + 3e-6, 1), (1 - 3e-6, 1), (1 + 1e-7, 0)])
def test_numbers_agree_to_a_millionth(run: Path, field: str, factor: float, found: int) -> None:
    lines = lines_of(run)
    lines[2][field] *= factor
    if field == "clipping_bound":
        # What follows from it goes along.
        lines[2]["sensitivity"] *= factor
        lines[2]["noise_std"] *= factor
    reseal(run, lines)
    assert len(problems(run)) == found
    assert all(problem.startswith(f"line 3 has {field} ") for problem in problems(run))


@pytest.mark.parametrize(("factor", "refused"), [(1 + 3e-6, True), (1 - 3e-6, True), (1 + 1e-7, False)])
def test_resuming_takes_a_first_line_that_agrees_to_a_millionth(run: Path, factor: float, refused: bool) -> None:
    lines = lines_of(run)
    for name in ("noise_multiplier", "noise_std", "run_noise_multiplier"):
        lines[0][name] *= factor
    for event in ("event", "run_event"):
        lines[0][event]["noise_multiplier"] *= factor
    reseal(run, lines)
    if refused:
        with pytest.raises(DataError, match="other privacy options"):
            ledger.resume(run, ROUNDS, small_mechanism(), SEED)
    else:
        assert ledger.resume(run, ROUNDS, small_mechanism(), SEED).num_rounds == ROUNDS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_multiplier": 1.1}, "line 1 has noise multiplier "),
        ({"noise_std": 0.05}, "line 1 has noise std 0.05"),
        ({"population": 401}, "line 1 has sampling rate 0.1"),
        ({"simulated": False}, "line 1 has simulated False, which should be True"),
        ({"run_sampling_rate": 0.06}, "line 1 has run's sampling rate 0.05, which should be 0.06"),
        ({"neighbouring": "replace_one"}, "line 1 has neighbouring zero_out, which should be replace_one"),
        ({"sampling": "fixed"}, "line 1 has sampling poisson, which should be fixed"),
        ({"rounds": ROUNDS + 1}, f"line 1 has number of releases {ROUNDS}, which should be {ROUNDS + 1}"),
        ({"run_event": {"count": 1}}, f"line 1 has run's count 1, which should be {ROUNDS}"),
        ({"run_event": {"noise": "laplace"}}, "line 1 has run's noise laplace, which should be gaussian"),
        ({"run_event": {"sampling": "none"}}, "line 1 has run's sampling none, which should be poisson"),
        ({"run_event": {"noise_multiplier": 0.5}}, "line 1 has run's noise multiplier 0.5"),
        ({"event": {"noise_multiplier": 0.9}}, "line 1 has noise multiplier 0.9"),
        ({"event": {"sampling_rate": 0.2}}, "line 1 has sampling rate 0.2, which should be 0.1"),
    ],
)
def test_the_first_line_adds_up(run: Path, change: Line, message: str) -> None:
    lines = lines_of(run)
    for name, value in change.items():
        lines[0][name] = {**lines[0][name], **value} if isinstance(value, dict) else value
    reseal(run, lines)
    try:
        found = problems(run)
    except PrivacyError as error:
        # No accountant has a bound for what it says.
        found = (str(error), message)
    assert any(problem.startswith(message) for problem in found), found


WRONG = (None, "a", -1, 0, 1e300, True, [1], {"a": 1}, 1 << 63, "nothing")
# Of line 1, what the verification computes nothing from: it says how the run was asked for.
TOLD = {"epsilon", "run_epsilon", "epsilon_per_round", "order", "mechanism", "noise_from_seed", "run_noise_multiplier"}
TOLD |= {"count_noise_std", "users", "artificial_users", "person"}


@pytest.mark.parametrize("kind", ["poisson", "fixed", "adaptive"])
def test_no_field_of_another_kind_passes_or_breaks_the_verification(tmp_path: Path, kind: str) -> None:
    options: Line = {"adaptive_clipping": True, "adaptive_clipping_noise_std": 2.0} if kind == "adaptive" else {}
    folder = finished_run_of(tmp_path / "run", made("fixed" if kind == "fixed" else "poisson", **options))
    lines = lines_of(folder)
    for number in (0, 1):
        for name, before in lines[number].items():
            if name in ("previous", "hash"):
                continue
            for value in WRONG:
                changed = {**lines[number], name: value}
                if value == "nothing":
                    del changed[name]
                reseal(folder, [*lines[:number], changed, *lines[number + 1 :]])
                try:
                    found: tuple[str, ...] = problems(folder)
                except (DataError, PrivacyError) as error:
                    found = (str(error),)
                harmless = name in TOLD if number == 0 else name == "realised_cohort" and kind != "fixed"
                assert found or harmless or value == before, (number, name, value)
                assert all("\n" not in problem for problem in found)


def finished_run_of(folder: Path, mechanism: Mechanism) -> Path:
    folder.mkdir()
    book = ledger.create(folder, mechanism, SEED)
    state = mechanism.init(4)
    for round_ in range(2):
        book = ledger.append(book, round_, CohortStats(20, 0, 0), state, after(round_))
    return folder
