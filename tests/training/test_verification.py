"""Run folders that were forged with fitting hashes, each in another way: the verification names what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedflair.commands.train import parse_train_config
from fedflair.errors import ConfigError, DataError
from fedflair.privacy.accounting import accountants
from fedflair.privacy.ledger import lines as files
from fedflair.privacy.mechanisms import deployment
from fedflair.runs.folder import RunFolder
from fedflair.runs.provenance import read_provenance
from fedflair.runs.tensors import load_tensors, save_tensors
from fedflair.training.train import train
from fedflair.training.verification import verify
from tests.privacy.ledgers import Line, lines_of, reseal
from tests.privacy.runs import run_config

KINDS: dict[str, dict[str, Any]] = {
    "moments": {},
    "simulated": {"noise_from_seed": True},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(scope="module")
def runs(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Callable[[str], Path]:
    """A finished run of 8 rounds, cohorts of 3 of 6 and delta 0.01, of each kind; its anchor is beside it."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run_of(kind: str) -> Path:
        if kind not in made:
            options = {"ledger_anchor": folder / f"{kind}.anchor", **KINDS[kind]}
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("XDG_CACHE_HOME", str(cache))
                made[kind] = train(run_config(tiny_store, folder / kind, kind, **options))
        return made[kind]

    return run_of


@pytest.fixture
def copied(runs: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda kind: Path(shutil.copytree(runs(kind), tmp_path / "run"))


def problems(run: Path, anchor: Path | None = None) -> tuple[str, ...]:
    return verify(run, anchor, use_cache=True).problems


Forge = Callable[[Path], None]


def in_lines(change: Callable[[Line, list[Line]], None]) -> Forge:
    """Changes line 1 and the rounds' lines, and mends all hashes."""

    def forge(run: Path) -> None:
        first, *rounds = lines_of(run)
        change(first, rounds)
        reseal(run, [first, *rounds])

    return forge


def times_five(first: Line, rounds: list[Line]) -> None:
    for fields in (first, *rounds):
        for name in ("noise_multiplier", "noise_std", "run_noise_multiplier"):
            if name in fields:
                fields[name] *= 5
    for event in (first["event"], first["run_event"]):
        event["noise_multiplier"] *= 5


def three_times_as_many(first: Line, rounds: list[Line]) -> None:
    first["population"] *= 3
    for fields in (first, first["event"], first["run_event"]):
        fields["sampling_rate"] /= 3


def a_tenth_of_the_bound(first: Line, rounds: list[Line]) -> None:
    for fields in (first, *rounds):
        for name in ("clipping_bound", "noise_std", "sensitivity"):
            if name in fields:
                fields[name] /= 10


def replacing(first: Line, rounds: list[Line]) -> None:
    for fields in (first, first["event"], first["run_event"]):
        fields["neighbouring"] = "replace_one"
    for line in rounds:
        line["sensitivity"] *= 2


def not_simulated(first: Line, rounds: list[Line]) -> None:
    first |= {"simulated": False, "population": 6, "noise_cohort_size": 3, "run_epsilon": first["epsilon"]}
    first["run_event"] = first["event"]
    for line in rounds:
        line["run_epsilon"] = line["epsilon"]


def of_earlier_version(first: Line, rounds: list[Line]) -> None:
    first["version"] = 2
    del first["provenance"]


def in_options(**options: Any) -> Forge:
    """Changes config.yaml, provenance.json and line 1 together, and the digest that line 1 and checkpoints have."""

    def forge(run: Path) -> None:
        folder = RunFolder(run)
        folder.config.write_text(yaml.safe_dump({**yaml.safe_load(folder.config.read_text()), **options}))
        raw = json.loads(folder.provenance.read_text())
        folder.provenance.write_text(json.dumps({**raw, "options": {**raw["options"], **options}}))
        provenance = read_provenance(folder)
        assert provenance is not None
        for path in (folder.last, folder.previous):
            tensors, facts = load_tensors(path)
            save_tensors(path, tensors, {**facts, "provenance": provenance.digest()})
        first, *rounds = lines_of(run)
        first |= {"provenance": provenance.digest(), **{k: v for k, v in options.items() if k in first}}
        reseal(run, [first, *rounds])

    return forge


def another_best(run: Path) -> None:
    tensors, facts = load_tensors(RunFolder(run).best)
    save_tensors(RunFolder(run).best, tensors, {**facts, "ledger": "0" * 64})


def cut(run: Path, num_rounds: int) -> None:
    """Everything that follows a round: its lines, the checkpoint after it, the summary."""
    path = run / files.FILE_NAME
    path.write_text("".join(path.read_text().splitlines(keepends=True)[: num_rounds + 1]))
    (run / "summary.json").unlink()


def cut_without_checkpoint(run: Path) -> None:
    cut(run, 5)
    shutil.rmtree(run / "checkpoints")


def cut_to_the_checkpoint_before(run: Path) -> None:
    folder = RunFolder(run)
    cut(run, 6)
    shutil.copy(folder.previous, folder.last)


def cut_everywhere(run: Path) -> None:
    """As the folder may have been after round 6."""
    cut_to_the_checkpoint_before(run)
    folder = RunFolder(run)
    folder.metrics.write_text("".join(folder.metrics.read_text().splitlines(keepends=True)[:6]))
    folder.best.unlink()


def in_summary(change: Callable[[dict[str, Any]], None]) -> Forge:
    def forge(run: Path) -> None:
        summary = json.loads((run / "summary.json").read_text())
        change(summary)
        (run / "summary.json").write_text(json.dumps(summary))

    return forge


def without_seed(run: Path) -> None:
    tensors, facts = load_tensors(RunFolder(run).last)
    save_tensors(RunFolder(run).last, tensors, {k: v for k, v in facts.items() if k != "noise_seed"})


def in_provenance(**fields: Any) -> Forge:
    def forge(run: Path) -> None:
        path = run / "provenance.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return forge


FORGED: dict[str, tuple[str, Forge, str]] = {
    "noise": ("moments", in_lines(times_five), "line 1 has noise_multiplier "),
    "population": ("moments", in_lines(three_times_as_many), "line 1 has population 18, which should be 6"),
    "delta": ("moments", in_lines(lambda first, _: first.update(delta=0.05)), "line 1 has delta 0.05, which should be"),
    "rate": (
        "simulated",
        in_lines(lambda first, _: first["run_event"].update(sampling_rate=0.5 / 3)),
        "line 1 has run_event.sampling_rate 0.1666",
    ),
    "one round": (
        "simulated",
        in_lines(lambda first, _: first["run_event"].update(count=1)),
        "line 1 has run_event.count 1, which should be 8",
    ),
    "relation": ("moments", in_lines(replacing), "line 1 has neighbouring replace_one, which should be zero_out"),
    "cohorts": (
        "moments",
        in_lines(lambda _, rounds: [line.update(realised_cohort=10**6) for line in rounds] and None),
        "line 2 has realised_cohort 1000000, which should be ",
    ),
    "one client more": (
        "moments",
        in_lines(lambda _, rounds: rounds[4].update(realised_cohort=rounds[4]["realised_cohort"] + 1)),
        "line 6 has realised_cohort ",
    ),
    "bound": ("moments", in_lines(a_tenth_of_the_bound), "line 1 has clipping_bound 0.01, which should be 0.1"),
    "seed of the noise set": (
        "moments",
        in_lines(lambda first, _: first.update(noise_from_seed=True)),
        "line 1 has noise_from_seed True, which should be False",
    ),
    "seed of the noise set everywhere": (
        "moments",
        in_options(noise_from_seed=True),
        "config.yaml has noise_from_seed, but the noise seed is not its seed 0",
    ),
    "seed of the noise hidden": (
        "simulated",
        in_lines(lambda first, _: first.update(noise_from_seed=False)),
        "line 1 has noise_from_seed False, which should be True",
    ),
    "seed of the noise hidden everywhere": (
        "simulated",
        in_options(noise_from_seed=False),
        "the checkpoint's noise seed is a short number, not 128 bits of the operating system",
    ),
    "simulation hidden": ("simulated", in_lines(not_simulated), "line 1 has simulated False, which should be True"),
    "options": (
        "moments",
        in_options(central_delta=0.05),
        "line 1 has delta 0.01, which should be 0.05",
    ),
    "another local training": (
        "moments",
        in_lines(lambda first, _: first.update(provenance="0" * 64)),
        "line 1 has provenance 0000",
    ),
    "configuration alone": (
        "moments",
        lambda run: (run / "config.yaml").write_text(
            (run / "config.yaml").read_text().replace("central_delta: 0.01", "central_delta: 0.05")
        ) and None,
        "config.yaml: central_delta is 0.05, but the run was started with 0.01",
    ),
    "no configuration": ("moments", lambda run: (run / "config.yaml").unlink(), "config.yaml: no such file"),
    "provenance": ("moments", in_provenance(num_clients=18), "provenance.json: is not the one that last.safetensors"),
    "clients": ("moments", in_provenance(num_clients=18), "provenance.json has num_clients 18, which should be 6"),
    "no clients": ("moments", in_provenance(num_clients=None), "provenance.json: does not say how many clients"),
    "epsilon of the summary": (
        "moments",
        in_summary(lambda summary: summary["privacy"].update(epsilon=0.5)),
        "summary.json has privacy.epsilon 0.5, which should be ",
    ),
    "words of the summary": (
        "moments",
        in_summary(lambda summary: summary["privacy"].update(words="Privacy: epsilon 0.1.")),
        "summary.json has privacy.words Privacy: epsilon 0.1., which should be Privacy: epsilon 8",
    ),
    "privacy of the summary": (
        "moments",
        in_summary(lambda summary: summary.update(privacy=None)),
        "summary.json has privacy None, which should be fields",
    ),
    "rounds of the summary": (
        "moments",
        in_summary(lambda summary: summary.update(rounds=7)),
        "has 8 rounds, but the run's summary has 7",
    ),
    "head of the summary": (
        "moments",
        in_summary(lambda summary: summary.update(ledger="0" * 64)),
        "line 9 is not the one that summary.json was written with",
    ),
    "coverage of the summary": (
        "moments",
        in_summary(lambda summary: summary.update(not_covered_by_epsilon=[])),
        "summary.json has another not_covered_by_epsilon than",
    ),
    "no seed": ("moments", without_seed, "last.safetensors: has no noise seed, as every private run's"),
    "a row": (
        "moments",
        lambda run: (run / "metrics.jsonl").write_text(
            (run / "metrics.jsonl").read_text().replace('"train/loss", ', "", 1)
        ) and None,
        "metrics.jsonl has other rows than last.safetensors was written with",
    ),
    "line ends": (
        "moments",
        lambda run: (run / "privacy_ledger.jsonl").write_bytes(
            (run / "privacy_ledger.jsonl").read_bytes().replace(b"\n", b"\r\n")
        ) and None,
        "line 1 was edited",
    ),
    "something more of the noise": (
        "moments",
        in_lines(lambda _, rounds: rounds[3]["generator"].update(secret=True)),
        "line 5 has generator {",
    ),
    "another best model": ("moments", another_best, "is not the one that best.safetensors was written with"),
    "no checkpoint": ("moments", cut_without_checkpoint, "last.safetensors: is missing, and every run writes it"),
    "an older checkpoint": ("moments", cut_to_the_checkpoint_before, "ends after 6 rounds, but metrics.jsonl has 8"),
    "an earlier version": ("moments", in_lines(of_earlier_version), "line 1 is of an earlier version than the ledger"),
    "a round more": (
        "moments",
        in_lines(lambda _, rounds: rounds.append({**rounds[-1], "round": 8})),
        "has 9 rounds, of a run of 8",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_what_was_forged_is_named(copied: Callable[[str], Path], what: str) -> None:
    kind, forge, message = FORGED[what]
    run = copied(kind)
    forge(run)
    try:
        found = problems(run)
    except DataError as error:
        found = (str(error),)
    assert any(message in problem for problem in found), found
    assert all("\n" not in problem and len(problem) < 600 for problem in found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_and_its_copy_are_sound(runs: Callable[[str], Path], copied: Callable[[str], Path], kind: str) -> None:
    anchor = runs(kind).with_suffix(".anchor")
    assert problems(copied(kind), anchor) == ()
    # Nothing is taken from the cache.
    found = verify(runs(kind))
    assert (found.problems, found.notes, found.num_rounds) == ((), (), 8)
    assert "ledger_anchor" not in json.loads((runs(kind) / "provenance.json").read_text())["options"]


def test_a_folder_that_was_cut_everywhere_is_found_by_its_anchor(
    runs: Callable[[str], Path], copied: Callable[[str], Path]
) -> None:
    run, anchor = copied("moments"), runs("moments").with_suffix(".anchor")
    cut_everywhere(run)
    assert problems(run) == ()
    assert problems(run, anchor) == (f"{anchor}: has 8 rounds of this run, and the ledger 6: lines miss at the end",)


def test_another_run_in_its_place_is_found_by_its_anchor(
    runs: Callable[[str], Path], tiny_store: Path, tmp_path: Path
) -> None:
    # Sound by itself: the same options over the same store, with other noise.
    run, anchor = train(run_config(tiny_store, tmp_path / "run", "moments")), runs("moments").with_suffix(".anchor")
    assert problems(run) == ()
    (problem,) = problems(run, anchor)
    assert problem.startswith(f"{anchor}: has nothing of this run; line 1 of the ledger is another one")


def test_a_store_that_is_elsewhere_is_a_note(copied: Callable[[str], Path]) -> None:
    run = copied("moments")
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "data_path": str(run / "nowhere.hdf5")}))
    found = verify(run, use_cache=True)
    assert found.problems == ()
    assert found.notes == (
        f"The run's store is not at {run}/nowhere.hdf5: that it has 6 clients, and how many of them each round drew, "
        "is not verified.",
    )


def test_rounds_that_a_resumed_run_does_again_are_recognised_by_its_anchor(
    runs: Callable[[str], Path], copied: Callable[[str], Path]
) -> None:
    run, anchor = copied("moments"), runs("moments").with_suffix(".anchor")
    before = anchor.read_bytes()
    assert len(before.splitlines()) == 1 + 8
    train(parse_train_config(["--resume", "--resume_from", "previous", "--run", str(run)]))
    assert anchor.read_bytes() == before
    assert problems(run, anchor) == ()
    assert (run / files.FILE_NAME).read_bytes() == (runs("moments") / files.FILE_NAME).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"central_privacy_mechanism": "none"}, "ledger_anchor: this run promises no epsilon and keeps no ledger"),
        ({"central_privacy_mechanism": "norm_clipping_only"}, "ledger_anchor: this run promises no epsilon"),
        ({"ledger_anchor": "run/anchor"}, "run/anchor lies in the run's own folder; keep it elsewhere"),
    ],
)
def test_an_anchor_that_would_hold_nothing_is_refused(
    tiny_store: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    options["ledger_anchor"] = tmp_path / options.get("ledger_anchor", "anchor")
    with pytest.raises(ConfigError, match=message):
        train(run_config(tiny_store, tmp_path / "run", "moments", **options))
    assert not (tmp_path / "run" / "config.yaml").exists()
    assert not (tmp_path / "anchor").exists()


def test_an_anchor_that_cannot_be_written_is_told_before_the_run_has_a_folder(tiny_store: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path}: "):
        train(run_config(tiny_store, tmp_path / "run", "moments", ledger_anchor=tmp_path))
    assert not (tmp_path / "run").exists()


def test_what_people_behind_artificial_users_are_promised_is_computed_anew(tiny_store: Path, tmp_path: Path) -> None:
    store = Path(shutil.copy(tiny_store, tmp_path / "store.hdf5"))
    options = {"dataset": "flair_iid", "mean_datapoints_per_user": 4, "central_num_iterations": 2}
    run = train(run_config(store, tmp_path / "run", "moments", **options))
    found = verify(run, use_cache=True)
    assert found.problems == ()
    assert found.artificial_users
    first, *rounds = lines_of(run)
    assert first["person"]["accounted"] and first["person"]["most_epsilon"] > first["epsilon"]
    told = "How many images a person has is taken from line 1"
    for name, wrong in (("most_images", 1), ("mean_images", 1.0), ("most_epsilon", 1.0), ("mean_epsilon", 0.5)):
        reseal(run, [{**first, "person": {**first["person"], name: wrong}}, *rounds])
        assert any(problem.startswith(f"line 1 has person.{name} ") for problem in problems(run)), name
    # Without the store the counts are believed, and what follows from them is not.
    store.rename(tmp_path / "elsewhere.hdf5")
    for name, wrong in (("most_epsilon", 1.0), ("mean_epsilon", 0.5)):
        reseal(run, [{**first, "person": {**first["person"], name: wrong}}, *rounds])
        assert any(problem.startswith(f"line 1 has person.{name} ") for problem in problems(run)), name
    for value in (None, 3, {}, {**first["person"], "most_images": "9"}, {**first["person"], "mean_images": -1}):
        reseal(run, [{**first, "person": value}, *rounds])
        assert any(problem.startswith("line 1 has person") for problem in problems(run)), value
    reseal(run, [first, *rounds])
    (elsewhere, taken) = verify(run, use_cache=True).notes
    assert elsewhere.startswith("The run's store is not at ") and taken.startswith(told)


def test_fixed_cohorts_accounted_by_renyi_before_losses_had_a_bound_verify_and_go_on(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(tiny_store, tmp_path / "run", "gaussian", central_num_iterations=2, cohort_sampling="fixed")
    monkeypatch.setattr(accountants, "_FIXED_ORDERS", [2, 4, 8])
    with monkeypatch.context() as earlier:
        for user in (accountants, deployment):
            earlier.setattr(user, "resolve_accountant", lambda event, asked, delta: "rdp")
        run = train(config)
    first, *rounds = lines_of(run)
    assert (first["accountant"], read_provenance(RunFolder(run)).options["accountant"]) == ("rdp", "auto")  # type: ignore[union-attr]
    assert problems(run) == ()
    train(config.changed(resume=True))
    # Begun today, such a run is accounted by its losses, and a line that says so with Renyi's epsilon is found.
    reseal(run, [{**first, "accountant": "pld"}, *rounds])
    assert problems(run)[0].startswith("line 1 has epsilon ")
