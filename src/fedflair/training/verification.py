"""Is a private run's ledger what its configuration, its store, its checkpoints and its summary lead to?

Line 1 is computed anew: the mechanism is made from ``config.yaml`` and the number of clients as training makes it, with
the checkpoint's noise seed. What nothing in the folder contradicts may still be a folder that was forged as a whole;
only an anchor that was kept elsewhere (``privacy/ledger/anchor.py``) finds that.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fedflair import __version__
from fedflair.config.train_config import TrainConfig
from fedflair.data.clients.federated import FederatedDataset, images_per_person
from fedflair.data.store.packed import open_store
from fedflair.errors import DataError, FedflairError, PrivacyError
from fedflair.federated.participation import answering
from fedflair.federated.plugins import plugin_code
from fedflair.federated.privacy_options import privacy_options
from fedflair.federated.setup import groups_of, labels_of, mechanisms_of, training_clients
from fedflair.federated.start import origin_of
from fedflair.privacy.accounting.cache import unremembered
from fedflair.privacy.contract import LocalMechanism, Mechanism, ParameterGroups
from fedflair.privacy.ledger import coverage, older
from fedflair.privacy.ledger import record as ledger
from fedflair.privacy.ledger import verification as checks
from fedflair.privacy.ledger.agreement import differences, is_number, shown
from fedflair.privacy.ledger.anchor import read_anchor
from fedflair.privacy.ledger.lines import FILE_NAME, FORMAT, ORIGIN, TORN, VERSION, Read, read_lines
from fedflair.privacy.path import make_path
from fedflair.runs.configuration import config_of_run
from fedflair.runs.folder import RunFolder, read_rows, read_summary, seal_rows
from fedflair.runs.more_rounds import check_more_rounds
from fedflair.runs.provenance import Provenance, read_provenance
from fedflair.runs.shapes import is_whole
from fedflair.system.json_text import parse_json
from fedflair.training.accountant import as_begun

# Epsilon, of the deployment and of the run, after so many rounds.
Reached = Callable[[int], Mapping[str, float | None]]

# A seed of the operating system has 128 bits: one in 2**64 is as short as this.
_SHORT_SEED = 1 << 64


@dataclass(frozen=True)
class Verification:
    """What a ledger was found to be.

    num_rounds: rounds it holds.
    delta, epsilon, run_epsilon: computed anew after them, of the deployment and of the run; None is infinite, and
        unknown where there are problems.
    noise_from_seed: whoever reads the configuration knows the noise: nothing is promised by the run.
    artificial_users: an epsilon is one of random groups of images, not of people.
    problems: each one line that names what is wrong; empty where the ledger is sound.
    notes: what is worth knowing and no problem.
    """

    num_rounds: int
    delta: float | None
    epsilon: float | None
    run_epsilon: float | None
    simulated: bool
    noise_from_seed: bool
    artificial_users: bool
    problems: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class _Findings:
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(run: Path, anchor: Path | None = None, *, use_cache: bool = False) -> Verification:
    """Reads what a run folder says of its ledger; unless ``use_cache``, all noise and epsilons are computed anew.

    anchor: the file that the run's training left the hashes of its lines in.
    Raises DataError where there is no ledger, or a file is damaged such that nothing can be made of it.
    """
    folder, path = RunFolder(run), run / FILE_NAME
    lines, found = read_lines(path), _Findings()
    first, rounds = _first_line(path, lines), lines[1:]
    if rounds and rounds[-1][1] == TORN:
        rounds.pop()
        found.notes.append(f"The last line is cut short: the run was killed while it began round {len(rounds)}.")
    found.notes += _open_to_others(folder, path)
    found.problems += checks.chain_problems(first["hash"], rounds)
    is_chain, sound, last = not found.problems, [line for line, _ in rounds], _facts(folder.last)
    # Lines that do not follow from each other are not looked into.
    looked_into = sound if is_chain else []
    with nullcontext() if use_cache else unremembered():
        if first["version"] == VERSION:
            terms, reached = _check_against_run(folder, first, looked_into, last, found)
        else:
            terms, reached = _check_against_itself(path, first, looked_into, last, found)
            if (provenance := read_provenance(folder)) is not None and provenance.num_clients is not None:
                found.problems.append(f"line 1 is of an earlier version than the run's {folder.provenance.name}")
        if is_chain:
            heads = [first["hash"], *(line["hash"] for line in sound)]
            _check_files(folder, heads, last, found, bound=first["version"] == VERSION)
            if anchor is not None:
                known = read_anchor(anchor, first["hash"])
                found.problems += checks.anchor_problems(known, heads, last["round"] if last else 0)
        epsilons: Mapping[str, float | None] = {"epsilon": None, "run_epsilon": None}
        if terms and not found.problems:
            epsilons = reached(len(sound)) if sound else dict.fromkeys(epsilons, 0.0)
    return Verification(
        num_rounds=len(sound),
        delta=terms["delta"] if terms else None,
        simulated=bool(terms and terms["simulated"]),
        noise_from_seed=bool(terms and terms.get("noise_from_seed")),
        artificial_users=bool(terms and terms.get("artificial_users")),
        problems=tuple(found.problems),
        notes=tuple(found.notes),
        **epsilons,
    )


def _first_line(path: Path, lines: list[Read]) -> dict[str, Any]:
    first, problem = lines[0] if lines else ({}, "is missing")
    if problem:
        raise DataError(f"{path}: line 1 {problem}; without it nothing can be verified")
    version = first.get("version")
    known = type(version) is int and 1 <= version <= VERSION
    if first.get("format") != FORMAT or not known or first["previous"] != ORIGIN:
        raise DataError(f"{path}: line 1 does not start a ledger that this fedflair reads; upgrade fedflair")
    return first


def _check_against_itself(
    path: Path, first: Mapping[str, Any], rounds: list[dict[str, Any]], last: Mapping[str, Any] | None, found: _Findings
) -> tuple[Mapping[str, Any] | None, Reached]:
    """Lines of an earlier version compared with each other, and with the seed in the checkpoint; returns line 1."""
    found.notes.append(older.NOTE.format(version=first["version"]))
    seed = last.get("noise_seed") if last else None
    try:
        problems = older.first_line_problems(first)
        if not problems:
            problems += older.round_problems(first, rounds)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if seed is not None and first["noise_seed_commitment"] != ledger.seed_commitment(seed):
        problems.append("line 1 belongs to another noise seed than the run's checkpoint")
        seed = None
    found.problems += problems + checks.noise_problems(seed, rounds, bound=first["version"] > 1)
    return first, partial(older.epsilons, first)


def _check_against_run(
    folder: RunFolder,
    first: Mapping[str, Any],
    rounds: list[dict[str, Any]],
    last: Mapping[str, Any] | None,
    found: _Findings,
) -> tuple[Mapping[str, Any] | None, Reached]:
    """Lines compared with what the run's files lead to; returns what line 1 should be, None where nothing can say."""
    seed = last.get("noise_seed") if last else None
    if last is None:
        found.problems.append(f"{folder.last}: is missing, and every run writes it before round 1; put it back")
    elif seed is None:
        found.problems.append(f"{folder.last}: has no noise seed, as every private run's checkpoint does")
    try:
        config, provenance = config_of_run(folder), read_provenance(folder)
        num_clients = None if provenance is None else provenance.num_clients
        if provenance is not None and provenance.plugins is not None:
            provenance.check_plugins(plugin_code(config))
        if provenance is None or num_clients is None:
            raise DataError(f"{folder.provenance}: does not say how many clients there are; put the run's own back")
        clients = _clients(config, provenance, found)
        images = _images_per_person(config, clients, first, found)
        groups, origin = groups_of(config, len(provenance.labels)), origin_of(provenance.started_from, provenance.store)
        begun, totals = as_begun(config, first), provenance.totals
        mechanism, local = mechanisms_of(begun, num_clients, seed or 0, images, groups, origin)
        began_with = mechanism
        if len(totals) > 1:
            fewer = begun.changed(central_num_iterations=totals[0])
            check_more_rounds(fewer, totals[-1], folder)
            began_with = mechanisms_of(fewer, num_clients, seed or 0, images, groups, origin)[0]
            found.notes.append(
                f"Begun with {totals[0]:,} rounds, which line 1 is about; more were added: {totals[-1]:,}."
            )
        if not ledger.is_due(mechanism):
            raise PrivacyError(f"{folder.config}: promises no epsilon, of which there could be a ledger")
    except FedflairError as error:
        found.problems.append(f"line 1 cannot be computed anew: {error}")
        return None, partial(older.epsilons, first)
    terms, reached = (
        ledger.terms_of(began_with, seed or 0, provenance.digest()),
        partial(ledger.cumulative_epsilon, mechanism, totals=totals),
    )
    if seed is None:
        terms["noise_seed_commitment"] = first.get("noise_seed_commitment")
    if last is not None and last.get("provenance") != provenance.digest():
        found.problems.append(f"{folder.provenance}: is not the one that {folder.last.name} was written with")
    found.problems += [*_seed_problems(config, seed), *checks.first_line_problems(first, terms)]
    _check_summary(folder, mechanism, local, found)
    if len(rounds) > totals[-1]:
        found.problems.append(f"has {len(rounds)} rounds, of a run of {totals[-1]}")
        return terms, reached
    most, sizes = num_clients, None
    if mechanism.description["sampling"] not in ("poisson", "b_min_separation"):
        most = config.cohort.cohort_size
        sizes = [most] * len(rounds) if config.cohort.dropout_rate == 0 else None
    if clients is not None and seed is not None:
        sizes = list(_cohort_sizes(config, clients, seed, len(rounds), groups))
    found.problems += checks.round_problems(mechanism, terms, rounds, most, sizes, totals)
    found.problems += checks.noise_problems(seed, rounds)
    if terms["adaptive_clipping"] and len(rounds) > 1:
        found.notes.append(checks.BOUND_NOTE)
    return terms, reached


def _seed_problems(config: TrainConfig, seed: int | None) -> list[str]:
    if seed is None:
        return []
    if config.run.noise_from_seed:
        wrong = f"config.yaml has noise_from_seed, but the noise seed is not its seed {config.run.seed}"
        return [] if seed == config.run.seed else [wrong]
    if seed < _SHORT_SEED:
        return ["the checkpoint's noise seed is a short number, not 128 bits of the operating system: it is no secret"]
    return []


def _clients(config: TrainConfig, provenance: Provenance, found: _Findings) -> FederatedDataset | None:
    """The clients that cohorts were drawn from, where the run's store is at its place."""
    where = config.data.data_path
    try:
        store = open_store(where)
        if store.fingerprint != provenance.store:
            raise DataError(f"{where}: another store")
        clients = training_clients(config, store, labels_of(config, store))
    except FedflairError:
        found.notes.append(
            f"The run's store is not at {where}: that it has {provenance.num_clients} clients, and how many of them "
            "each round drew, is not verified."
        )
        return None
    if len(clients.client_ids) != provenance.num_clients:
        found.problems.append(
            f"provenance.json has num_clients {provenance.num_clients}, which should be {len(clients.client_ids)} "
            f"({where})"
        )
        return None
    return clients


def _images_per_person(
    config: TrainConfig, clients: FederatedDataset | None, first: Mapping[str, Any], found: _Findings
) -> tuple[float, int] | None:
    """(mean, most) images of the people behind artificial users: of the store, or without it as line 1 has them."""
    if config.data.dataset != "flair_iid":
        return None
    if clients is not None:
        return images_per_person(open_store(config.data.data_path), "train")
    person = first.get("person")
    mean, most = (person.get(name) for name in ("mean_images", "most_images")) if isinstance(person, dict) else (0, 0)
    if not is_number(mean) or type(most) is not int or not 0 < mean <= most:
        found.problems.append(f"line 1 has person {shown(person)}, which does not say how many images people have")
        return None
    found.notes.append("How many images a person has is taken from line 1, as the run's store is not there.")
    return float(mean), most


def _cohort_sizes(
    config: TrainConfig, clients: FederatedDataset, noise_seed: int, num_rounds: int, groups: ParameterGroups | None
) -> Iterator[int]:
    """Of each round, drawn again."""
    path = make_path(
        privacy_options(config, groups=groups),
        clients.client_ids,
        sampling=config.sampling,
        cohort_size=config.cohort.cohort_size,
        num_rounds=config.algorithm.central_num_iterations,
        seed=config.run.seed,
        noise_seed=noise_seed,
    )
    for round_ in range(num_rounds):
        yield len(answering(config, round_, path.sampler.sample(round_)))


def _check_summary(folder: RunFolder, mechanism: Mechanism, local: LocalMechanism, found: _Findings) -> None:
    """What the summary says of privacy, and of what epsilon does not cover."""
    if not folder.summary.is_file():
        return
    summary, name = read_summary(folder), folder.summary.name
    is_ours = summary.get("version") == __version__
    if not is_ours:
        version = shown(summary.get("version"))
        found.notes.append(f"{name} is of version {version}: how it puts things in words is not compared.")
    for field_, description in (("privacy", mechanism.description), ("local_privacy", local.description)):
        said, right = summary.get(field_), dict(description) or None
        if not is_ours and isinstance(said, dict) and right:
            right["words"] = said.get("words")
        found.problems += [f"{name} has {problem}" for problem in differences(said, right, field_)]
    if is_ours and summary.get(coverage.FIELD) != coverage.SUMMARY:
        found.problems.append(f"{name} has another {coverage.FIELD} than runs with an epsilon have")


def _check_files(
    folder: RunFolder, heads: list[str], last: Mapping[str, Any] | None, found: _Findings, *, bound: bool
) -> None:
    """Rounds that something else in the folder knows of, and the hashes of their lines. bound: files carry those."""
    num_rounds, problems = len(heads) - 1, found.problems
    previous, best = _facts(folder.previous), _facts(folder.best, "best_round")
    for path, facts in ((folder.last, last), (folder.previous, previous)):
        if facts is None:
            continue
        if facts["round"] > num_rounds:
            problems.append(
                f"ends after {num_rounds} rounds, but {path.name} has {facts['round']}: lines miss at the end"
            )
        elif not bound and "ledger" in facts:
            problems.append(f"line 1 is of an earlier version than the ledger that {path.name} was written with")
        elif bound and facts.get("ledger") != heads[facts["round"]]:
            problems.append(f"line {facts['round'] + 1} is not the one that {path.name} was written with")
    if last and previous and previous["round"] > last["round"]:
        problems.append(f"last.safetensors has {last['round']} rounds, and previous.safetensors {previous['round']}")
    if best and best["best_round"] > num_rounds:
        problems.append(f"ends after {num_rounds} rounds, but {folder.best.name} is of round {best['best_round']}")
    elif best and bound and best.get("ledger") != heads[best["best_round"]]:
        problems.append(f"line {best['best_round'] + 1} is not the one that {folder.best.name} was written with")
    if bound and last and last.get("metrics") not in (None, seal_rows(folder, last["round"])):
        problems.append(f"{folder.metrics.name} has other rows than {folder.last.name} was written with")
    try:
        rows = read_rows(folder)
        summary = read_summary(folder) if folder.summary.is_file() else None
    except DataError as error:
        problems.append(str(error))
        return
    if rows and rows[-1]["round"] > num_rounds:
        problems.append(f"ends after {num_rounds} rounds, but {folder.metrics.name} has {rows[-1]['round']}")
    if summary is None:
        return
    if summary["rounds"] != num_rounds:
        problems.append(f"has {num_rounds} rounds, but the run's summary has {summary['rounds']}")
    elif not bound and "ledger" in summary:
        problems.append(f"line 1 is of an earlier version than the ledger that {folder.summary.name} was written with")
    elif bound and summary.get("ledger") != heads[-1]:
        problems.append(f"line {num_rounds + 1} is not the one that {folder.summary.name} was written with")
    elif last and last["round"] != num_rounds:
        problems.append(f"{folder.last.name} has {last['round']} rounds, but the run's summary has {num_rounds}")


def _facts(path: Path, number: str = "round") -> dict[str, Any] | None:
    """What a checkpoint says of itself, None where there is none; no tensor is read.

    number: what tells which round it is of. Raises DataError for damage.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            facts: dict[str, Any] = parse_json(file.metadata()["facts"])
        if not is_whole(facts[number]) or facts[number] < 0:
            raise ValueError(number)
        return facts | {name: int(str(facts[name])) for name in ("noise_seed",) if name in facts}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{path}: damaged checkpoint ({type(error).__name__}); put the file back from a copy"
        ) from error


def _open_to_others(folder: RunFolder, path: Path) -> Iterator[str]:
    for secret in (path, folder.last, folder.previous):
        if secret.is_file() and stat.S_IMODE(secret.stat().st_mode) & 0o077:
            yield f"{secret} can be read by others, and holds what nobody else may know; close it with: chmod 600"
