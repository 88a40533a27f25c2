"""Local mechanisms: what the server learns of clients from the very updates that they send it, each with its own noise.

A canary sends a huge entry or its opposite, the coin says which, round after round, through training's own
``bound_update``. The promise is about any two updates of one client, and the server knows whom it asked. Compression is
left out: what comes after the noise can only lose.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from fedflair.audit.direct import SHARE, noise_findings
from fedflair.audit.game import Game
from fedflair.audit.run import canary_worker
from fedflair.audit.scores import log_likelihood_ratio
from fedflair.audit.statistics import Bools, as_normal, normal_tail
from fedflair.config.groups.cohort import CohortOptions
from fedflair.errors import ConfigError
from fedflair.federated.client import ClientUpdate
from fedflair.federated.local_metrics import LocalMetrics
from fedflair.federated.server import Broadcast
from fedflair.privacy.accounting.calibration import single_release
from fedflair.privacy.accounting.events import Noise, PrivacyEvent
from fedflair.privacy.contract import Clipping, LocalMechanism, LocalPrivacyOptions
from fedflair.privacy.mechanisms.clipping import clip_update
from fedflair.training.client_group import bound_update

# Entries of an update, of which the first is the canary's and the others are zero.
_SIZE = 32

Vector = npt.NDArray[np.float64]


def local_event(options: LocalPrivacyOptions, num_rounds: int) -> PrivacyEvent:
    """What a client that is asked in every round releases, from its budget. Raises ConfigError where there is none."""
    if options.mechanism not in ("gaussian", "laplace"):
        raise ConfigError(
            f"local_privacy_mechanism: {options.mechanism} promises no epsilon, so there is nothing to audit; name "
            "another"
        )
    noise: Noise = "gaussian" if options.mechanism == "gaussian" else "laplace"
    multiplier = single_release(noise, options.epsilon, options.delta, "replace_one")
    return PrivacyEvent(noise, multiplier, num_rounds, neighbouring="replace_one")


def run_local(mechanism: LocalMechanism, bound: float, num_rounds: int, heads: Bools) -> Vector:
    """What the server gets of each canary in each round, over the clipping bound: [rounds, canaries, entries]."""
    # Central clipping leaves everything as it is.
    clipping = Clipping("none", lambda update, central: clip_update(update, math.inf))
    worker = canary_worker(CohortOptions(), np.ones(1), _SIZE, mechanism, clipping)
    got = np.zeros((num_rounds, len(heads), _SIZE), dtype=np.float32)
    for round_ in range(num_rounds):
        server = Broadcast(round_, torch.zeros(_SIZE), {}, math.inf)
        for number, sign in enumerate(np.where(heads, 1.0, -1.0)):
            update = ClientUpdate(torch.zeros(_SIZE), 1.0, 1, LocalMetrics())
            update.delta[0] = 1000 * sign * bound
            bound_update(worker, update, server, f"canary-{number}")
            got[round_, number] = update.delta.numpy()
    return got.astype(np.float64) / bound


def local_game(got: Vector, event: PrivacyEvent, delta: float, heads: Bools) -> Game:
    """The canaries' game, played by the server."""
    seen = got[:, :, 0] / event.noise_multiplier
    squares = np.ones(len(got))
    return Game(
        event=event,
        seen=event,
        delta=delta,
        accountant="pld",
        heads=heads,
        scores=log_likelihood_ratio(seen, squares, event).sum(axis=0),
        sums=seen.sum(axis=0),
        expected=2 * len(got) / event.noise_multiplier,
        noise=float(np.sqrt((got[:, :, 1:] ** 2).mean() / _variance(event))) / event.noise_multiplier,
    )


def local_findings(mechanism: LocalMechanism, got: Vector, event: PrivacyEvent, heads: Bools) -> list[str]:
    """What is wrong with clients' own noise and clipping."""
    stated, due = float(mechanism.description["noise_multiplier"]), event.noise_multiplier
    found = []
    if not math.isclose(stated, due, rel_tol=1e-6):
        found.append(f"a local noise multiplier of {stated:.6g} is stated, and its budget asks for {due:.6g}")
    signs = np.where(heads, 1.0, -1.0)
    noise = got / due
    noise[:, :, 0] -= signs / due
    excess = float((noise[:, :, 0] @ signs).sum()) / math.sqrt(noise[:, :, 0].size * _variance(event))
    if excess > normal_tail(SHARE):
        found.append(f"updates are longer than the clipping bound ({excess:.1f} standard deviations more)")
    if event.noise == "laplace":
        noise = as_normal(noise)
    by_client = noise.transpose(1, 0, 2).reshape(len(heads), -1)
    return [*found, *noise_findings(noise.reshape(len(got), -1), "round"), *noise_findings(by_client, "client")]


def _variance(event: PrivacyEvent) -> float:
    """Of noise of scale 1."""
    return 2.0 if event.noise == "laplace" else 1.0
