"""What an auditor who knows cohorts, updates and noise sees wrong with each part of a central path.

Each check returns what is wrong, a line each. The false alarms of all of them together are below ``LEVEL``: those that
compare random numbers share it, the others have none.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import torch

from fedflair.audit.run import Seen, canary_number
from fedflair.audit.statistics import as_normal, largest_correlation, largest_repetition, least_square, normal_tail
from fedflair.privacy.accounting.accountants import epsilon
from fedflair.privacy.accounting.shown import finite, show
from fedflair.privacy.contract import CohortStats, Mechanism, PrivacyOptions
from fedflair.privacy.mechanisms.clipping import vector_norm
from fedflair.privacy.mechanisms.private_metrics import NUM_ENTRIES, STATE
from fedflair.privacy.path import PrivacyPath
from fedflair.sampling import SamplerDescription

LEVEL = 1e-3
# What each of the comparisons of random numbers has of the level.
SHARE = LEVEL / 16

# How far two floating-point ways to one number may lie apart.
_CLOSE = 1e-5

# What is asked of the count's noise beside what the run has shown of it, in each round.
_PROBES = 64

Vector = npt.NDArray[np.float64]


def direct_findings(path: PrivacyPath, options: PrivacyOptions, seen: Seen) -> list[str]:
    """Everything that is wrong with the parts of a path, in the order in which an update meets them."""
    return [
        *_terms(path, seen),
        *_cohorts(path, seen),
        *_contributions(path, seen),
        *noise_findings(_normal(seen), "round"),
        *_count(path, options, seen),
        *_metrics(path, options, seen),
    ]


def _terms(path: PrivacyPath, seen: Seen) -> list[str]:
    """What a mechanism says of itself that does not follow from the event that it is accounted by."""
    facts, known = path.mechanism.description, seen.accounted
    event, sampler = known.event, path.sampler.description
    found = []
    true, stated = finite(epsilon(event, known.delta, known.accountant)), facts["run_epsilon"]
    if not _same(true, stated):
        found.append(f"epsilon is stated as {show(stated)}, and its event costs {show(true)}")
    rate = known.turns * sampler.sampling_rate
    is_drawn = event.sampling == sampler.kind and event.sampling_rate >= rate * (1 - _CLOSE)
    if not is_drawn and not (known.rotating and sampler.kind == "rotating"):
        found.append(
            f"{sampler.kind} cohorts of rate {rate:.6g} are accounted as {event.sampling}, {event.sampling_rate:.6g}"
        )
    found += _participations(seen) if known.rotating else _releases(seen)
    if known.count_std is not None and 2 * known.count_std <= event.noise_multiplier:
        found.append(f"noise of {known.count_std:.6g} on the count leaves no privacy for the sum")
    due = known.multiplier * seen.bounds[:-1] * np.linalg.norm(np.linalg.inv(known.strategy), axis=1)
    due *= math.sqrt(2) if event.noise == "laplace" else 1.0
    worst = int(np.argmax(np.abs(seen.stated / due - 1)))
    if not _same(float(seen.stated[worst]), float(due[worst])):
        found.append(
            f"round {worst} states noise of standard deviation {seen.stated[worst]:.6g}, accounted as {due[worst]:.6g}"
        )
    return found


def _releases(seen: Seen) -> list[str]:
    """Of drawn cohorts: every group's turn is a release, in which a client counts once."""
    known, num_rounds = seen.accounted, len(seen.asked)
    found, releases = [], math.ceil(num_rounds / known.turns)
    if known.event.count < releases:
        found.append(f"{releases} releases are accounted as {known.event.count}")
    norm = float(np.linalg.norm(known.strategy, axis=0).max())
    width = max(lag + 1 for lag in range(num_rounds) if known.strategy.diagonal(-lag).any())
    if norm > 1 + _CLOSE or width > known.min_separation:
        found.append(
            f"correlated noise lets a client count {norm:.4f} times in {width} rounds, accounted as once in "
            f"{known.min_separation}"
        )
    if known.column is not None:
        lags = range(min(num_rounds, len(known.column)))
        own = np.array([np.abs(known.strategy.diagonal(-lag)).max() for lag in lags])
        if (own > known.column[: len(own)] + _CLOSE).any() or known.strategy.min() < -_CLOSE:
            found.append("correlated noise lets a contribution count more in a round than it is accounted for")
    return found


def _participations(seen: Seen) -> list[str]:
    """Of cohorts that rotate: what each client adds up to, in the rounds that it was in."""
    known = seen.accounted
    clients = sorted({client_id for cohort in seen.asked for client_id in cohort})
    place = {client_id: number for number, client_id in enumerate(clients)}
    rounds = np.zeros((len(seen.asked), len(clients)))
    for round_, cohort in enumerate(seen.asked):
        rounds[round_, [place[client_id] for client_id in cohort]] = 1.0
    counts = rounds.sum(axis=0)
    if known.event.noise == "gaussian":
        counts = np.linalg.norm(known.strategy @ rounds, axis=0)
    event = known.seen
    allowed = math.sqrt(event.count) * known.multiplier / event.noise_multiplier
    if event.noise == "laplace":
        allowed = event.count
    if counts.max() > allowed * (1 + _CLOSE):
        return [f"a client counts {counts.max():.4f} times in this run, accounted as {allowed:.4f}"]
    return []


def _same(found: float | None, expected: float | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return math.isclose(found, expected, rel_tol=_CLOSE)


def _cohorts(path: PrivacyPath, seen: Seen) -> list[str]:
    description, separation = path.sampler.description, seen.accounted.min_separation
    return [
        *_repeated_clients(seen.asked, separation),
        *_too_many(seen, description),
        *_too_alike(seen, description.population),
    ]


def _repeated_clients(cohorts: list[list[str]], min_separation: int) -> list[str]:
    last: dict[str, int] = {}
    for round_, cohort in enumerate(cohorts):
        if len(set(cohort)) < len(cohort):
            return [f"the cohort of round {round_} holds a client twice"]
        for client_id in cohort:
            if round_ - last.get(client_id, -min_separation) < min_separation:
                return [f"{client_id} is in the cohorts of rounds {last[client_id]} and {round_}"]
            last[client_id] = round_
    return []


def _too_many(seen: Seen, description: SamplerDescription) -> list[str]:
    sizes = [len(cohort) for cohort in seen.asked]
    expected = description.population * seen.accounted.event.sampling_rate / seen.accounted.turns
    if seen.accounted.rotating:
        expected = description.cohort_size
    if seen.accounted.rotating or seen.accounted.event.sampling == "fixed":
        wrong = next((size for size in sizes if size != round(expected)), None)
        return [] if wrong is None else [f"a cohort holds {wrong} clients, accounted as {expected:.0f}"]
    # Cohorts are sums of independent coins: never more spread than Poisson numbers of the same mean.
    all_expected = expected * len(sizes)
    if sum(sizes) > all_expected + normal_tail(SHARE) * math.sqrt(all_expected) + 3:
        return [f"cohorts hold {sum(sizes)} clients in all, accounted as {all_expected:.1f}"]
    return []


def _too_alike(seen: Seen, population: int) -> list[str]:
    """Cohorts with more clients in common than independent ones have: some clients are in more often than accounted."""
    if seen.accounted.min_separation > 1 or seen.accounted.rotating:
        # Which clients could have been drawn is secret there; that nobody is back too soon says enough.
        return []
    cohorts = [set(cohort) for cohort in seen.asked]
    excess, variance = 0.0, 0.0
    for first, second in itertools.combinations(cohorts, 2):
        # Hypergeometric, given their sizes.
        mean = len(first) * len(second) / population
        excess += len(first & second) - mean
        variance += mean * (1 - len(first) / population) * (1 - len(second) / population)
    if excess > normal_tail(SHARE) * math.sqrt(variance) + 3:
        return [f"cohorts have {excess:.0f} more clients in common than independent ones would"]
    return []


def _contributions(path: PrivacyPath, seen: Seen) -> list[str]:
    return [*_long_updates(path.mechanism, seen), *_too_much_sent(seen), *_too_much_released(seen)]


def _long_updates(mechanism: Mechanism, seen: Seen) -> list[str]:
    """Updates of many kinds that clipping leaves longer than the bound, in the norm that is accounted."""
    order = 1.0 if seen.accounted.event.noise == "laplace" else 2.0
    bound, random = float(seen.bounds[0]), np.random.default_rng(0)
    dense = random.standard_normal(1000)
    for name, values in {
        "dense": dense,
        "huge": dense * 1e30,
        "a little too long": np.eye(1000)[7] * bound * 1.001,
        "of two entries": (np.eye(1000)[3] - np.eye(1000)[990]) * bound,
        "not finite": np.where(np.arange(1000) == 500, np.nan, 1.0),
    }.items():
        update = torch.from_numpy(values.astype(np.float32))
        length = _clipped_length(mechanism, update, bound, order)
        if not length <= 1:
            return [f"an update that is {name} is clipped to {length:.6g} times the clipping bound"]
    return []


def _clipped_length(mechanism: Mechanism, update: torch.Tensor, bound: float, order: float) -> float:
    """What clipping leaves of ``update``, over the bound; where groups are clipped apart, of it in each of them."""
    if mechanism.grouped is None:
        mechanism.clip(update, bound)
        return vector_norm(update, order) / bound
    bounds, sizes = mechanism.group_bounds(mechanism.init(0)), mechanism.grouped.groups.sizes
    whole = torch.zeros(sum(sizes))
    parts = torch.split(whole, list(sizes))
    for part in parts:
        part[: len(update)] = update
    mechanism.grouped.clip(whole, bounds)
    return max(vector_norm(part, order) / own for part, own in zip(parts, bounds))


def _too_much_sent(seen: Seen) -> list[str]:
    """What clients add to the sum that is given to the mechanism."""
    largest = float(np.abs(seen.sent).max(initial=0.0))
    if largest > 1 + _CLOSE:
        return [f"canaries contribute more than the clipping bound ({largest:.4g} times)"]
    return []


def _too_much_released(seen: Seen) -> list[str]:
    """Canaries' own coordinates of what is released, in the rounds they were in: on average the bound, at most.

    What a canary adds to a round is spread by the filter over that round and the next ones, so that each of its rounds
    is read with the filter's own weights, which is the best that can be done against independent noise.
    """
    strategy = seen.accounted.strategy
    excess, squares = 0.0, 0.0
    for round_, cohort in enumerate(seen.joined):
        canaries = [number for number in map(canary_number, set(cohort)) if number is not None]
        values, weights = seen.noise[:, canaries], strategy[:, round_]
        excess += float(weights @ values @ seen.signs[canaries])
        squares += float(weights @ weights) * len(canaries)
    spread = math.sqrt(max(squares, 1.0) * (2.0 if seen.accounted.event.noise == "laplace" else 1.0))
    if excess > normal_tail(SHARE) * spread:
        return [f"canaries contribute more than the clipping bound ({excess / spread:.1f} standard deviations more)"]
    return []


def _normal(seen: Seen) -> Vector:
    """The noise of each round (rows) as numbers that are standard normal where it is what is accounted."""
    return as_normal(seen.noise) if seen.accounted.event.noise == "laplace" else seen.noise


def noise_findings(noise: Vector, rows: str) -> list[str]:
    """What is wrong with ``noise``, which should be independent and standard normal, or wider. rows: what a row is."""
    return [*_too_little_noise(noise, rows), *_repeated_noise(noise, rows)]


def _too_little_noise(noise: Vector, rows: str) -> list[str]:
    """In all, in a row, in a coordinate: wherever it is, its share is found."""
    squares = noise**2
    num_rows, size = noise.shape
    if squares.mean() < least_square(SHARE, noise.size):
        return [f"the noise's standard deviation is {math.sqrt(squares.mean()):.4f} of what is accounted"]
    by_row, by_coordinate = squares.mean(axis=1), squares.mean(axis=0)
    if by_row.min() < least_square(SHARE, size, num_rows):
        worst = int(by_row.argmin())
        return [
            f"the noise's standard deviation is {math.sqrt(by_row[worst]):.4f} of what is accounted in {rows} {worst}"
        ]
    if by_coordinate.min() < least_square(SHARE, num_rows, size):
        worst = int(by_coordinate.argmin())
        return [
            f"the noise's standard deviation is {math.sqrt(by_coordinate[worst]):.4f} of what is accounted in "
            f"coordinate {worst}"
        ]
    return []


def _repeated_noise(noise: Vector, rows: str) -> list[str]:
    """Rows, or coordinates of a row, whose noises are correlated."""
    num_rows, size = noise.shape
    found, lag = largest_repetition(noise)
    if found > normal_tail(SHARE / 2, size // 2) / math.sqrt(noise.size):
        return [f"noises of coordinates {lag} apart have correlation {found:.3f}"]
    if num_rows < 2:
        return []
    found, first, second = largest_correlation(noise)
    if found > normal_tail(SHARE / 2, num_rows * (num_rows - 1) // 2) / math.sqrt(size):
        return [f"the noises of {rows}s {first} and {second} have correlation {found:.3f}"]
    return []


def _count(path: PrivacyPath, options: PrivacyOptions, seen: Seen) -> list[str]:
    """The noise on the count of whole updates, which whoever knows the true count reads off the bound's path."""
    count_std = seen.accounted.count_std
    if count_std is None:
        return []

    def noisy(ratios: Vector) -> Vector:
        """Noisy counts of whole updates less half of the cohort, from the ratios by which they moved the bound."""
        shares = options.adaptive_clipping_quantile - np.log(ratios) / options.adaptive_clipping_learning_rate
        return np.asarray((shares - 0.5) * path.sampler.description.cohort_size / count_std)

    # A run's rounds are few: each is asked for more, with sums that nobody else has given.
    bounds = seen.bounds[:-1]
    asked = np.stack([noisy(_probed(path.mechanism, round_, bound)) for round_, bound in enumerate(bounds)])
    runs = [asked]
    if path.mechanism.grouped is None:
        runs.insert(0, noisy(seen.bounds[1:] / bounds) - _true_counts(seen) / count_std)
    for noise in runs:
        square = float((noise**2).mean())
        if square < least_square(SHARE, noise.size):
            return [
                f"the noise on the count of whole updates has a standard deviation of {math.sqrt(square):.4f} of what "
                "is accounted"
            ]
    if len(np.unique(asked)) < asked.size:
        return ["the noise on the count of whole updates repeats"]
    return []


def _true_counts(seen: Seen) -> Vector:
    """Whole updates less half of the cohort, in each round: canaries are clipped, and all others whole."""
    clipped = [sum(canary_number(client) is not None for client in cohort) for cohort in seen.joined]
    return np.array([len(cohort) / 2 - number for cohort, number in zip(seen.joined, clipped)])


def _probed(mechanism: Mechanism, round_: int, bound: float) -> Vector:
    """By what ratios noisy counts of nobody move the bound, or each of the groups' bounds."""
    size, state = 1, {**mechanism.init(1), "clipping_bound": torch.tensor(bound, dtype=torch.float64)}
    if mechanism.grouped is not None:
        size, state = sum(mechanism.grouped.groups.sizes), dict(mechanism.init(1))
    moved = []
    for number in range(1, _PROBES + 1):
        total = torch.zeros(size)
        total[0] = number
        _, after = mechanism.add_noise(total, CohortStats(0, 0, 0), round_, state)
        moved.append((after["clipping_bound"] / state["clipping_bound"]).numpy().reshape(-1))
    return np.concatenate(moved)


def _metrics(path: PrivacyPath, options: PrivacyOptions, seen: Seen) -> list[str]:
    """The noise on metrics that are released with a sum, which the mechanism is asked for with sums of its own."""
    share, mechanism = options.private_metrics, path.mechanism
    if share == 0:
        return []
    event, state = seen.accounted.seen, mechanism.init(1)
    # Of what one client can move one of them by.
    due = seen.accounted.multiplier * (1 - share) ** (1 / (1.0 if event.noise == "laplace" else 2.0))
    due /= float(seen.accounted.strategy[0, 0])
    entry = (share / NUM_ENTRIES) ** (1 / (1.0 if event.noise == "laplace" else 2.0))
    shown = []
    for number in range(1, _PROBES + 1):
        _, after = mechanism.add_noise(torch.tensor([float(number)]), CohortStats(0, 0, 0), 0, state)
        shown.append(after[STATE].numpy() * entry / due)
    noise = np.stack(shown)
    noise = as_normal(noise) if event.noise == "laplace" else noise
    return [f"metrics: {found}" for found in noise_findings(noise, "probe")]
