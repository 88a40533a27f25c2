"""What a ledger says is checked field by field, and each check is seen to trip by itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fedflair.errors import DataError, FedflairError, PrivacyError
from fedflair.privacy.ledger import older
from fedflair.privacy.ledger import record as ledger
from fedflair.privacy.ledger import verification as checks
from fedflair.privacy.mechanisms.noise import noise_fingerprint
from fedflair.runs.tensors import save_tensors
from fedflair.training.verification import verify
from tests.privacy.ledgers import (
    COHORTS,
    ROUNDS,
    SEED,
    Line,
    begun_run,
    facts_of,
    finished_run,
    lines_of,
    released,
    reseal,
    resumed,
    small_config,
)

KINDS: dict[str, Line] = {
    "poisson": {},
    "fixed": {"cohort_sampling": "fixed"},
    "adaptive": {"adaptive_clipping": True, "adaptive_clipping_noise_std": 2.0},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return finished_run(tmp_path / "run")


def problems(run: Path) -> tuple[str, ...]:
    return verify(run, use_cache=True).problems


def test_a_line_that_names_another_line_before_it_does_not_follow(run: Path) -> None:
    # Every line's own hash fits, its round and its numbers too.
    reseal(run, lines_of(run), lambda number, head: "0" * 63 + "1" if number == 4 else head)
    assert problems(run) == ("line 5 does not follow from the line before (round 3)",)
    with pytest.raises(PrivacyError, match="line 5 does not follow from the line before, but the checkpoint has 6"):
        resumed(run, ROUNDS)


def test_a_line_cut_out_is_missed_on_resuming_whatever_its_hashes_say(run: Path) -> None:
    lines = lines_of(run)
    reseal(run, [*lines[:3], *lines[4:]])
    with pytest.raises(PrivacyError, match="line 4 does not follow from the line before, but the checkpoint has 5"):
        resumed(run, 5)


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


def test_replayed_noise_is_found_without_the_seed(run: Path) -> None:
    lines = lines_of(run)
    lines[5]["generator"] = {**lines[3]["generator"], "counter": 4}
    reseal(run, lines)
    shutil.rmtree(run / "checkpoints")
    missing = f"{run / 'checkpoints' / 'last.safetensors'}: is missing, and every run writes it before round 1; put it "
    assert problems(run) == (f"{missing}back", "line 6 repeats the noise of round 2")


def test_a_checkpoint_of_more_rounds_is_found_without_a_summary(run: Path) -> None:
    (run / "summary.json").unlink()
    facts = {**facts_of(resumed(run, ROUNDS)), "round": ROUNDS + 1}
    save_tensors(run / "checkpoints" / "last.safetensors", {}, facts)
    assert problems(run) == (
        f"ends after {ROUNDS} rounds, but last.safetensors has {ROUNDS + 1}: lines miss at the end",
    )
    # A run that was killed after a round that no checkpoint has yet.
    facts |= {"round": ROUNDS - 1, "ledger": lines_of(run)[ROUNDS - 1]["hash"]}
    save_tensors(run / "checkpoints" / "last.safetensors", {}, facts)
    assert problems(run) == ()
    facts["ledger"] = lines_of(run)[ROUNDS]["hash"]
    save_tensors(run / "checkpoints" / "last.safetensors", {}, facts)
    assert problems(run) == (f"line {ROUNDS} is not the one that last.safetensors was written with",)


def test_a_cohort_of_fixed_size_has_that_size(tmp_path: Path) -> None:
    book = released(begun_run(tmp_path / "run", small_config(**KINDS["fixed"])), 3)
    lines = lines_of(tmp_path / "run")
    lines[3]["realised_cohort"] = 21
    assert found_in(book, lines) == ["line 4 has realised_cohort 21, which should be 20"]


def test_a_cohort_of_coins_may_have_any_size_that_there_are_clients_for(run: Path) -> None:
    for size, found in ((COHORTS[2] + 9, 0), (400, 0), (401, 1), (1_000_000, 1), (-1, 1), (20.0, 1)):
        lines = lines_of(run)
        lines[3]["realised_cohort"] = size
        reseal(run, lines)
        assert len(problems(run)) == found
        assert all(problem == f"line 4 has realised_cohort {size}, of 400 clients at most" for problem in problems(run))


@pytest.mark.parametrize("field", ["epsilon", "run_epsilon", "noise_std", "sensitivity", "clipping_bound"])
@pytest.mark.parametrize(("factor", "found"), [(1 + 3e-6, 1), (1 - 3e-6, 1), (1 + 1e-7, 0)])
def test_numbers_agree_to_a_millionth(run: Path, field: str, factor: float, found: int) -> None:
    lines = lines_of(run)
    lines[2][field] *= factor
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
            resumed(run, ROUNDS)
    else:
        assert resumed(run, ROUNDS).num_rounds == ROUNDS


WRONG: tuple[Any, ...] = (None, "x", -1, 0, 0.5, 1e300, [], {}, True, [1], {"a": 1}, 1 << 63, "\ud800", "nothing")
# What the data led to: any such value could have been.
FREE = {"poisson": {"realised_cohort"}, "fixed": set(), "adaptive": {"realised_cohort"}}


@pytest.mark.parametrize("kind", KINDS)
def test_no_field_of_another_kind_passes_or_breaks_the_verification(tmp_path: Path, kind: str) -> None:
    """Every field of line 1 and of a round's line, and of what is in them, as every kind of JSON value."""
    book = released(begun_run(tmp_path / "run", small_config(**KINDS[kind])), 2)
    lines = lines_of(tmp_path / "run")
    assert found_in(book, lines) == []
    for number, line in enumerate(lines):
        for path in paths_in(line):
            for value in WRONG:
                changed = with_field(line, path, value)
                found = found_in(book, [*lines[:number], changed, *lines[number + 1 :]])
                harmless = path[-1] in FREE[kind] and value == 0 and value is not False
                assert found or harmless or same_json(changed, line), (number, path, value)
                assert all("\n" not in problem and len(problem) < 500 for problem in found)


@pytest.mark.parametrize("version", [1, 2])
def test_no_field_of_an_earlier_version_breaks_its_verification(tmp_path: Path, version: int) -> None:
    released(begun_run(tmp_path / "run", small_config(cohort_size=400, noise_cohort_size=400)), 1)
    first, line = lines_of(tmp_path / "run")
    first |= {"version": version}
    del first["provenance"]
    if version == 1:
        line["generator"]["fingerprint"] = noise_fingerprint(SEED, 0, "")
    assert older_found_in(first, line) == []
    for path in paths_in(first):
        for value in WRONG:
            assert all("\n" not in problem for problem in older_found_in(with_field(first, path, value), line))
    for path in paths_in(line):
        for value in WRONG:
            changed = with_field(line, path, value)
            harmless = path[0] == "realised_cohort" and type(value) is int
            harmless |= path[-1] in ("counter", "binding") and version == 1
            assert older_found_in(first, changed) or harmless or same_json(changed, line), (path, value)


def found_in(book: ledger.Ledger, lines: list[Line]) -> list[str]:
    first, *rounds = lines
    chain = checks.chain_problems(lines[0]["hash"], [(line, "") for line in rounds])
    noise = checks.noise_problems(SEED, rounds)
    terms = checks.first_line_problems(first, book.terms)
    sizes = [20] * len(rounds) if book.terms["sampling"] == "fixed" else None
    return [*chain, *terms, *checks.round_problems(book.mechanism, book.terms, rounds, 400, sizes), *noise]


def older_found_in(first: Line, line: Line) -> list[str]:
    try:
        problems = older.first_line_problems(first) or older.round_problems(first, [line])
    except FedflairError as error:
        problems = [str(error)]
    chain = checks.chain_problems(line["previous"], [(line, "")])
    return [*chain, *problems, *checks.noise_problems(SEED, [line], bound=first.get("version") == 2)]


def test_a_number_that_no_float_holds_is_no_line(run: Path) -> None:
    text = (run / ledger.FILE_NAME).read_text()
    (run / ledger.FILE_NAME).write_text(text.replace('"realised_cohort":17', '"realised_cohort":1e400'))
    assert problems(run)[0] == "line 3 is not JSON"


def paths_in(line: Line) -> list[tuple[str, ...]]:
    own = [(name,) for name in line if name not in ("previous", "hash")]
    return own + [(name, inner) for name, value in line.items() if isinstance(value, dict) for inner in value]


def with_field(line: Line, path: tuple[str, ...], value: Any) -> Line:
    changed: Line = json.loads(json.dumps(line))
    holder = changed[path[0]] if len(path) == 2 else changed
    if value == "nothing":
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return changed


def same_json(one: Line, other: Line) -> bool:
    return json.dumps(one) == json.dumps(other)
