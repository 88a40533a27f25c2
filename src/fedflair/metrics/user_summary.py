"""What a per-user evaluation says of all users: distributions, the worst tenth, by user size, and what tuning gains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedflair.metrics.per_user import USER_METRICS

Row = Mapping[str, Any]

# Smallest and largest number of images of each class of users; FLAIR's quartiles are 1, 2 and 5.
SIZES = ((1, 1), (2, 2), (3, 5), (6, 16), (17, 64), (65, None))
SHOWN_BY_SIZE = ("micro_ap", "micro_f1", "loss")


def summarise_users(rows: Sequence[Row]) -> dict[str, Any]:
    """All that is said of the rows of ``personalise.evaluate_users``, every user counting alike.

    distribution: by metric, see ``distribution``. by_size: means of each class of ``SIZES`` that has users.
    personalisation: of users with held-out images; None without any.
    """
    return {
        "num_users": len(rows),
        "num_images": sum(row["num_images"] for row in rows),
        "num_users_without_positives": sum(math.isnan(row["micro_ap"]) for row in rows),
        "distribution": {name: distribution([row[name] for row in rows], name) for name in USER_METRICS},
        "by_size": _by_size(rows),
        "personalisation": _personalisation(rows),
    }


def distribution(values: Sequence[float], name: str) -> dict[str, float]:
    """mean, std, quartiles, and the mean of the worst tenth of the users; those without a value are left out.

    The worst tenth has the lowest values, or the highest of ``loss``, and at least one user.
    """
    found = _numbers(values)
    if len(found) == 0:
        return dict.fromkeys(("mean", "std", "q1", "median", "q3", "worst_tenth"), float("nan"))
    worst = np.sort(found if name != "loss" else -found)[: max(1, len(found) // 10)].mean()
    q1, median, q3 = np.quantile(found, [0.25, 0.5, 0.75])
    return {
        "mean": float(found.mean()),
        "std": float(found.std()),
        "q1": float(q1),
        "median": float(median),
        "q3": float(q3),
        "worst_tenth": float(worst if name != "loss" else -worst),
    }


def size_name(low: int, high: int | None) -> str:
    """How a class of user sizes is called, e.g. ``3-5``."""
    if high is None:
        return f">{low - 1}"
    return str(low) if low == high else f"{low}-{high}"


def _by_size(rows: Sequence[Row]) -> list[dict[str, Any]]:
    classes = []
    for low, high in SIZES:
        users = [row for row in rows if low <= row["num_images"] <= (high or math.inf)]
        tuned = [row for row in users if "personalised" in row]
        if users:
            found: dict[str, Any] = {"images": size_name(low, high), "num_users": len(users)}
            found |= {name: _mean([row[name] for row in users]) for name in SHOWN_BY_SIZE}
            for model in ("global", "personalised") if tuned else ():
                found |= {f"{model}_{name}": _mean([row[model][name] for row in tuned]) for name in SHOWN_BY_SIZE}
            classes.append(found)
    return classes


def _personalisation(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Of the users with held-out images; None without any.

    global, personalised: distributions by metric. gain: mean over users of their difference, its standard error, and
    the shares of users whose value rose and fell.
    """
    tuned = [row for row in rows if "personalised" in row]
    if not tuned:
        return None
    models = {
        model: {name: distribution([row[model][name] for row in tuned], name) for name in USER_METRICS}
        for model in ("global", "personalised")
    }
    gain = {}
    for name in USER_METRICS:
        gains = _numbers([row["personalised"][name] - row["global"][name] for row in tuned])
        count = max(len(gains), 1)
        gain[name] = {
            "mean": float(gains.mean()) if len(gains) else float("nan"),
            "standard_error": float(gains.std(ddof=1) / math.sqrt(count)) if count > 1 else float("nan"),
            "share_risen": float(np.sum(gains > 0) / count),
            "share_fallen": float(np.sum(gains < 0) / count),
        }
    return {"num_users": len(tuned), "num_users_left_out": len(rows) - len(tuned), **models, "gain": gain}


def _numbers(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    found = np.asarray(values, dtype=np.float64)
    return found[~np.isnan(found)]


def _mean(values: Sequence[float]) -> float:
    found = _numbers(values)
    return float(found.mean()) if len(found) else float("nan")
