"""Options whose values are names in a table: fedflair's own, to which plugins add theirs.

The tables stand above this room; ``federated/plugins.py`` imports plugins and holds every name against them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

OWN_NAMES: Mapping[str, tuple[str, ...]] = {
    "model": ("multi_label_cnn", "small_cnn"),
    "algorithm_name": ("fedavg", "fedprox", "adafedprox", "scaffold", "reptile", "central"),
    "weighting": ("uniform", "num_examples", "log", "sqrt", "clipped"),
    "compression": ("none", "top_k", "quantize_8bit"),
    "central_optimizer": ("adam", "adam_bc", "adagrad", "yogi", "avgm", "sgd"),
    "central_privacy_mechanism": (
        "none",
        "gaussian",
        "gaussian_moments_accountant",
        "laplace",
        "norm_clipping_only",
        "banded_matrix_factorization",
        "banded_inverse_square_root",
        "buffered_linear_toeplitz",
        "tree_aggregation",
        "auto",
    ),
    "local_privacy_mechanism": ("none", "gaussian", "laplace", "norm_clipping_only"),
}
# Packages may name modules in this group of entry points, which then need no --plugins.
PLUGIN_GROUP = "fedflair.plugins"


def unknown_name(option: str, value: str, known: Iterable[str], remedy: str) -> str:
    """What to say of a name that is in no table."""
    names = list(known)
    close = difflib.get_close_matches(value, names, n=1)
    guess = f"did you mean {close[0]}? There are " if close else "there are "
    return f"{option}: {value!r} is unknown; {guess}{', '.join(names)}{remedy}"
