"""The path from clients to released sums: a mechanism and the cohorts that it is accounted for, made together."""

from __future__ import annotations

from dataclasses import dataclass

from fedflair.privacy.contract import Mechanism, PrivacyOptions
from fedflair.privacy.ledger.record import is_due
from fedflair.privacy.mechanisms import make_mechanism
from fedflair.privacy.mechanisms.auto import CHOSEN_AMONG, candidates, chosen, named, with_table
from fedflair.privacy.mechanisms.cyclic_sampling import sampler_for
from fedflair.sampling import SAMPLERS, AskedSampling, CohortSampler, SamplerDescription, SamplingKind


@dataclass(frozen=True)
class PrivacyPath:
    """What a run's promise rests on: who is drawn, and what is done to the sum of their updates."""

    mechanism: Mechanism
    sampler: CohortSampler


def make_path(
    options: PrivacyOptions,
    client_ids: list[str],
    *,
    sampling: AskedSampling,
    cohort_size: int,
    num_rounds: int,
    seed: int,
    noise_seed: int,
) -> PrivacyPath:
    """The only way to a mechanism and its sampler, for training and for the audit of it.

    Where an epsilon is promised, drawn cohorts come from ``noise_seed`` and not from ``seed``: sampling hides a client
    only from those who cannot compute who was drawn, and ``seed`` is written in the run's configuration. Those that
    rotate are no secret.
    Raises ConfigError and PrivacyError as ``make_mechanism`` does.
    """
    mechanism, kind = mechanism_and_sampling(options, sampling, cohort_size, len(client_ids), num_rounds, noise_seed)
    cohort_seed = noise_seed if is_due(mechanism) and kind != "rotating" else seed
    if kind in ("poisson", "b_min_separation"):
        return PrivacyPath(mechanism, sampler_for(mechanism, client_ids, cohort_size, cohort_seed))
    return PrivacyPath(mechanism, SAMPLERS[kind](client_ids, cohort_size, cohort_seed))


def mechanism_and_sampling(
    options: PrivacyOptions,
    sampling: AskedSampling,
    cohort_size: int,
    num_clients: int,
    num_rounds: int,
    noise_seed: int,
) -> tuple[Mechanism, SamplingKind]:
    """The mechanism, and how cohorts are drawn for it, of a run over that many clients; as ``make_path`` has them."""
    if sampling == "auto":
        both = [SamplerDescription(kind, cohort_size, num_clients) for kind in CHOSEN_AMONG]
        found = candidates(options, both, num_rounds)
        best = chosen(found)
        sampler = next(one for one in both if one.kind == best.sampling)
        mechanism = make_mechanism(named(options, best), sampler, num_rounds, noise_seed)
        return with_table(mechanism, found), best.sampling
    sampler = SamplerDescription(sampling, cohort_size, num_clients)
    return make_mechanism(options, sampler, num_rounds, noise_seed), sampling
