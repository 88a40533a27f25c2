"""What a run that has not ended promises, as far as its folder says: its epsilon and caveats are there from round 1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedflair.errors import DataError, FedflairError
from fedflair.federated.setup import groups_of, mechanisms_of
from fedflair.federated.start import origin_of
from fedflair.privacy.accounting.shown import SEEDED, show
from fedflair.privacy.ledger.lines import FILE_NAME, read_lines
from fedflair.privacy.ledger.terms import terms_problem
from fedflair.runs.configuration import config_of_run
from fedflair.runs.folder import RunFolder
from fedflair.runs.provenance import read_provenance
from fedflair.training.accountant import as_begun

_WITHOUT_EPSILON = ("none", "norm_clipping_only")
_UNKNOWN = "Privacy: the run's ledger cannot be read here, so nothing is known of its epsilon."


def central_so_far(run: Path, options: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The central mechanism of all planned rounds, from the first line of the ledger; None without a promise.

    Where more rounds were added since, it is described anew, as that line is about those that the run began with; and
    where the run starts from another one's model, as that line has no words.
    """
    mechanism = options.get("central_privacy_mechanism", "none")
    if mechanism in _WITHOUT_EPSILON:
        return None
    try:
        lines = read_lines(run / FILE_NAME)
    except DataError:
        lines = []
    terms, problem = lines[0] if lines else ({}, "is missing")
    if problem or terms_problem(terms):
        return {"mechanism": mechanism, "delta": options.get("central_delta"), "epsilon": None, "words": _UNKNOWN}
    return _described(RunFolder(run), terms)


def _described(folder: RunFolder, terms: Mapping[str, Any]) -> Mapping[str, Any]:
    """What line 1 of a ledger says, or what is to be said now where that is more."""
    try:
        provenance = read_provenance(folder)
        if provenance is None or provenance.num_clients is None:
            return terms
        if provenance.more_rounds is None and provenance.started_from is None:
            return terms
        person = terms.get("person")
        images = (float(person["mean_images"]), int(person["most_images"])) if isinstance(person, dict) else None
        origin = origin_of(provenance.started_from, provenance.store)
        config = as_begun(config_of_run(folder), terms)
        groups = groups_of(config, len(provenance.labels))
        made, _ = mechanisms_of(config, provenance.num_clients, 0, images, groups, origin)
    except (FedflairError, KeyError, TypeError, ValueError):
        return {**terms, "epsilon": None, "run_epsilon": None, "words": _UNKNOWN}
    return made.description


def local_so_far(options: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The clients' own mechanism, from the options: of one update, as no file has the rest yet."""
    mechanism = options.get("local_privacy_mechanism", "none")
    if mechanism in _WITHOUT_EPSILON:
        return None
    one, delta, seeded = options.get("local_epsilon"), options.get("local_delta"), options.get("noise_from_seed")
    words = f"Local privacy: epsilon {show(_float(one))} at delta {delta} towards the server for one update."
    return {
        "mechanism": mechanism,
        "epsilon_per_release": one,
        "delta": delta,
        "noise_from_seed": seeded,
        "words": f"{SEEDED} With noise that nobody knows: {words}" if seeded else words,
    }


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
