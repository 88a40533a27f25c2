"""A store's statistics as plain data, and FLAIR's published values in the same shape to stand beside them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fedflair.data import published as flair

if TYPE_CHECKING:
    from fedflair.data.describe.statistics import LabelStatistics, Statistics

# The quantities that have a distribution, as (title, path into a partition's statistics).
DISTRIBUTIONS = (
    ("images per user", ("images_per_user",)),
    ("coarse labels per image", ("labels", "labels_per_image")),
    ("fine labels per image", ("fine_grained_labels", "labels_per_image")),
    ("coarse labels per user", ("labels", "distinct_labels_per_user")),
    ("fine labels per user", ("fine_grained_labels", "distinct_labels_per_user")),
)
DIVERGENCES = (
    ("coarse labels", ("labels", "divergence_from_population")),
    ("coarse, if IID", ("labels", "divergence_if_iid")),
    ("fine labels", ("fine_grained_labels", "divergence_from_population")),
    ("fine, if IID", ("fine_grained_labels", "divergence_if_iid")),
)
MOMENTS = ("mean", "std", "min", "q25", "median", "q75", "max")


def _moments(published: flair.Distribution) -> dict[str, float]:
    moments = zip(MOMENTS, (published.mean, published.std, published.minimum, *published.quartiles, published.maximum))
    return {name: value for name, value in moments if value is not None}


PUBLISHED: dict[str, Any] = {
    **{name: {"users": size.users, "images": size.images} for name, size in flair.PARTITION_SIZES.items()},
    "all": {
        "users": flair.NUM_USERS,
        "images": flair.NUM_IMAGES,
        "images_per_user": _moments(flair.IMAGES_PER_USER),
        "labels": {
            "in_use": len(flair.COARSE_COUNTS),
            "images_per_label": flair.COARSE_COUNTS,
            "labels_per_image": _moments(flair.COARSE_LABELS_PER_IMAGE),
            "distinct_labels_per_user": _moments(flair.COARSE_LABELS_PER_USER),
        },
        "fine_grained_labels": {
            "in_use": flair.NUM_FINE_LABELS,
            "images_per_label": flair.FINE_HEAD_COUNTS,
            "labels_per_image": _moments(flair.FINE_LABELS_PER_IMAGE),
            "distinct_labels_per_user": _moments(flair.FINE_LABELS_PER_USER),
        },
    },
}


def published_beside(plain: dict[str, Any]) -> dict[str, Any]:
    """What stands beside a dataset's own figures: FLAIR's, where its coarse labels are most of FLAIR's and no others;
    else nothing, as for people's own photographs."""
    names = set(plain["all"]["labels"]["images_per_label"])
    own = set(flair.COARSE_COUNTS)
    return PUBLISHED if names <= own and 2 * len(names) > len(own) else {}


def has_fine_labels(plain: dict[str, Any]) -> bool:
    """Whether the dataset has fine labels at all, which people's own need not have."""
    return bool(plain["all"]["fine_grained_labels"]["images_per_label"])


def as_plain(by_partition: dict[str, Statistics]) -> dict[str, Any]:
    """Every number as plain types: partition -> statistics; labels as name -> count, in index order."""
    return {name: _plain(statistics) for name, statistics in by_partition.items()}


def _plain(statistics: Statistics) -> dict[str, Any]:
    return {
        "users": statistics.num_users,
        "images": statistics.num_images,
        "image_bytes": statistics.image_bytes,
        "images_per_user": asdict(statistics.images_per_user),
        "labels": _plain_labels(statistics.coarse),
        "fine_grained_labels": _plain_labels(statistics.fine),
    }


def _plain_labels(labels: LabelStatistics) -> dict[str, Any]:
    return {
        "in_use": int((labels.images > 0).sum()),
        "images_per_label": dict(zip(labels.names, labels.images.tolist())),
        "users_per_label": dict(zip(labels.names, labels.users.tolist())),
        "labels_per_image": asdict(labels.per_image),
        "distinct_labels_per_user": asdict(labels.per_user),
        "divergence_from_population": asdict(labels.divergence),
        "divergence_if_iid": asdict(labels.divergence_if_iid),
    }


def look_up(plain: dict[str, Any], *path: str) -> Any:
    """The value at a path of keys, or None where some part of it is not there."""
    value: Any = plain
    for key in path:
        if key not in value:
            return None
        value = value[key]
    return value


def partition_table(plain: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: partition, users, images, megabytes, users and images beside what is published of them."""
    beside = published_beside(plain)
    rows = []
    for name, own in plain.items():
        published = beside.get(name, {})
        row = [name]
        for kind in ("users", "images"):
            row += [count(own[kind]), *([count(published.get(kind))] if beside else [])]
        rows.append([*row, f"{own['image_bytes'] / 1e6:,.1f}"])
    others = ["in FLAIR"] if beside else []
    return ["", "users", *others, "images", *others, "MB"], rows


def distribution_rows(plain: dict[str, Any], kinds: tuple[tuple[str, tuple[str, ...]], ...]) -> list[list[str]]:
    """Rows of: title and the seven moments; a row ``in FLAIR`` follows where values are published."""
    everything, beside = plain["all"], published_beside(plain).get("all", {})
    rows = []
    for title, path in kinds:
        if path[0] == "fine_grained_labels" and not has_fine_labels(plain):
            continue
        own, published = look_up(everything, *path), look_up(beside, *path)
        rows.append([title, *[number(own[moment]) for moment in MOMENTS]])
        if published is not None:
            rows.append(["in FLAIR", *[_as_published(published.get(moment)) for moment in MOMENTS]])
    return rows


def label_table(plain: dict[str, Any], kind: str, names: list[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: label, its images in each partition, share of all images, images and share published.

    kind: ``labels`` or ``fine_grained_labels``. Shares are in percent.
    """
    published = published_beside(plain).get("all")
    rows = []
    for name in names:
        own = [statistics[kind]["images_per_label"][name] for statistics in plain.values()]
        row = [name, *map(count, own), share(own[-1], plain["all"]["images"])]
        if published is not None:
            known = published[kind]["images_per_label"].get(name)
            row += [count(known), share(known, published["images"])]
        rows.append(row)
    return ["", *plain, "%", *(["in FLAIR", "%"] if published is not None else [])], rows


def most_frequent(everything: dict[str, Any], kind: str, number: int) -> list[str]:
    """Names of the labels on most images, at most ``number``, most first; none that is on no image."""
    images: dict[str, int] = everything[kind]["images_per_label"]
    ranked = sorted((name for name, n in images.items() if n > 0), key=lambda name: -images[name])
    return ranked[:number]


def count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def number(value: float | None) -> str:
    """Whole numbers as such, others with three decimals; empty for what is unknown, a dash for what has no value."""
    if value is None:
        return ""
    if value != value:  # nan: nothing to take the statistic of
        return "-"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.3f}"


def _as_published(value: float | None) -> str:
    """With the decimals that were published, no more."""
    return "" if value is None else f"{value:,}"


def share(images: int | None, of: int) -> str:
    return "" if images is None or of == 0 else f"{100 * images / of:.1f}"
