"""How somebody who sees only noisy sums guesses who is in them: by likelihood, which nothing tells better."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fedflair.audit.accounted import Accounted
from fedflair.audit.game import Game
from fedflair.audit.run import Seen, canary_number
from fedflair.audit.statistics import Bools
from fedflair.privacy.accounting.b_min_separation import log_likelihood_ratio as log_ratio_apart
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.path import PrivacyPath

Vector = npt.NDArray[np.float64]

# Draws of a group of clients after which most of its clients have been seen.
_MOST_DRAWS = 200


def game_of(path: PrivacyPath, seen: Seen, heads: Bools) -> Game:
    """The canaries' game in a central run, played by somebody who knows in which rounds a client could be drawn."""
    known, num_canaries = seen.accounted, len(heads)
    # For each round, what is seen of a contribution to it, weighted with what the strategy makes of one, in units of
    # the noise's scale; and the square of that, less than 1 near the end of the run.
    matched, squares = known.strategy.T @ seen.released[:, :num_canaries], (known.strategy**2).sum(axis=0)
    could = _rounds_of_canaries(path, known, num_canaries, len(matched))
    rate = min(known.event.sampling_rate, 1.0)
    if known.rotating and known.event.noise == "gaussian":
        # All of a client's contributions are one, whose rounds are known: they may overlap in what is seen of them.
        lengths = ((known.strategy @ could) ** 2).sum(axis=0)
        scores = ((matched * could).sum(axis=0) - lengths / known.multiplier / 2) / known.multiplier
        expected = float(lengths.mean()) / known.multiplier
    elif known.column is not None:
        column = known.column / known.multiplier
        scores = log_ratio_apart(iter(seen.released[:, :num_canaries]), column, known.event.sampling_rate)
        # Read in every round, a contribution is seen in those of the rounds beside its own that share rows with it.
        expected = float((known.strategy.T @ known.strategy).sum()) * rate * _apart(known.seen)
    else:
        scores = (log_likelihood_ratio(matched, squares, known.seen) * could).sum(axis=0)
        expected = float((squares[:, None] * could).sum(axis=0).mean()) * rate * _apart(known.seen)
    silent = seen.noise[:, num_canaries:]
    return Game(
        event=known.event,
        seen=known.seen,
        delta=known.delta,
        accountant=known.accountant,
        heads=heads,
        scores=scores,
        sums=(matched * could).sum(axis=0),
        expected=expected,
        noise=math.sqrt(float((silent**2).mean()) / (2.0 if known.event.noise == "laplace" else 1.0)),
    )


def _apart(event: PrivacyEvent) -> float:
    """Distance between what heads and tails contribute, over the scale of the noise."""
    return (2.0 if event.neighbouring == "replace_one" else 1.0) / event.noise_multiplier


def log_likelihood_ratio(matched: Vector, squares: Vector, event: PrivacyEvent) -> Vector:
    """Of heads over tails, for each of ``matched``; ``event`` says how often a client contributes, and how much."""
    rate = 1.0 if event.sampling == "none" else min(event.sampling_rate, 1.0)
    step = 1 / event.noise_multiplier

    def likely(sign: float) -> Vector:
        """Log of the density where the client contributes if drawn, over that of noise alone."""
        if event.noise == "laplace":
            joined = np.abs(matched) - np.abs(matched - sign * step)
        else:
            joined = sign * step * matched - step**2 * squares[:, None] / 2
        return joined if rate == 1 else np.logaddexp(math.log1p(-rate), math.log(rate) + joined)

    return likely(1.0) - likely(-1.0) if event.neighbouring == "replace_one" else likely(1.0)


def _rounds_of_canaries(path: PrivacyPath, known: Accounted, num_canaries: int, num_rounds: int) -> Bools:
    """In which rounds a canary could have been drawn: bool [rounds, canaries].

    The groups of clients that take turns are secret; the promise holds against those who know them.
    """
    separation = known.min_separation
    if known.rotating:
        could = np.zeros((num_rounds, num_canaries), dtype=bool)
        for round_ in range(num_rounds):
            could[round_, _canaries(path, round_)] = True
        return could
    could = np.ones((num_rounds, num_canaries), dtype=bool)
    if separation == 1 or known.column is not None:
        return could
    draws = min(math.ceil(7 / min(known.event.sampling_rate, 1.0)), _MOST_DRAWS)
    for round_ in range(separation * draws):
        could[:, _canaries(path, round_)] = (np.arange(num_rounds) % separation == round_ % separation)[:, None]
    return could


def _canaries(path: PrivacyPath, round_: int) -> list[int]:
    return [number for number in map(canary_number, path.sampler.sample(round_)) if number is not None]
