"""What a source may hold at most, far above what FLAIR has: what is more was made to take memory, time or disk."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Each is an option of ``fedflair prepare`` and ``convert``, by which it can be raised.

    image_pixels: of one photograph, read in its header before it is decoded; FLAIR's full-size ones come from cameras
        of up to 50 million. image_bytes: of one encoded photograph; the full-size ones have 2.8 MB on average.
    image_scans: of one progressive JPEG, each a pass over all pixels; encoders make about ten.
    label_bytes: of a file of labels; FLAIR's has 130 MB. archive_growth: how many times an archive or a column of a
        parquet file may grow when it is unpacked; photographs hardly do.
    """

    image_pixels: int = 89_478_485
    image_bytes: int = 1 << 28
    image_scans: int = 100
    label_bytes: int = 1 << 30
    archive_growth: int = 200

    def unpacked(self, packed_bytes: int) -> int:
        """How many bytes may come of an archive of ``packed_bytes``; small ones may grow more."""
        return (1 << 26) + self.archive_growth * packed_bytes


DEFAULT = Limits()
