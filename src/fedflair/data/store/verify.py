"""Every image byte of a store against what was written; for FLAIR some seconds."""

from __future__ import annotations

from fedflair.data.store.fingerprint import images_digest
from fedflair.data.store.packed import Store
from fedflair.errors import DataError


def verify(store: Store) -> None:
    """Raises DataError where an image's bytes are not those that were written, or where the store recorded no digest.

    The columns were compared when the store was opened.
    """
    if store.digests.images is None:
        raise DataError(
            f"{store.path}: recorded no digest of its images, as stores of older versions; "
            "'fedflair convert STORE NEW --layout packed' makes one that does"
        )
    for name, partition in store.partitions.items():
        if images_digest(len(partition.images), partition.images.read) != store.digests.images[name]:
            raise DataError(
                f"{store.path}: damaged: the images of partition {name!r} are not those that were written; "
                "prepare it again, or copy it anew"
            )
