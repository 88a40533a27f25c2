"""What is trained on, and as whose: a group of options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedflair.config.checks import at_least_one, require
from fedflair.errors import ConfigError

Dataset = Literal["flair", "flair_iid"]


@dataclass(frozen=True)
class DataOptions:
    """Data: what is trained on, and as whose.

    Args:
        data_path: The packed store to train on.
        dataset: Natural users (flair) or artificial users drawn from all images (flair_iid).
        use_fine_grained_labels: Train on the store's fine labels (FLAIR's 1,628) instead of its coarse ones (17).
        binary_label: Train on this one label (yes or no) instead of all of them.
        label_subset: Train on these labels only, in this order.
        minimum_num_datapoints_per_user: Leave out clients with fewer images.
        max_num_user_images: Most images of one user in one round; a larger user draws a fresh subset each round.
        mean_datapoints_per_user: Images of an artificial user (flair_iid only); a whole number where they are constant.
        datapoints_per_user_distribution: Whether those sizes are all equal or Poisson.
        image_size: Side in pixels of the square network input; the network's own, mostly 224, if not given.
    """

    data_path: Path = Path("data/flair/flair_federated.hdf5")
    dataset: Dataset = "flair"
    use_fine_grained_labels: bool = False
    binary_label: str | None = None
    label_subset: tuple[str, ...] | None = None
    minimum_num_datapoints_per_user: int = 1
    max_num_user_images: int = 512
    mean_datapoints_per_user: float = 50
    datapoints_per_user_distribution: Literal["constant", "poisson"] = "constant"
    image_size: int | None = None

    def __post_init__(self) -> None:
        require(self.image_size is None or self.image_size >= 16, "image_size", self.image_size, "at least 16")
        at_least_one(self, "minimum_num_datapoints_per_user", "max_num_user_images", "mean_datapoints_per_user")
        require(math.isfinite(self.mean_datapoints_per_user), "mean_datapoints_per_user", "inf", "a finite number")
        if self.datapoints_per_user_distribution == "constant":
            whole = "a whole number where all are equal; or give --datapoints_per_user_distribution poisson"
            mean = self.mean_datapoints_per_user
            require(float(mean).is_integer(), "mean_datapoints_per_user", mean, whole)
        if self.binary_label is not None and self.label_subset is not None:
            raise ConfigError("binary_label: given together with label_subset; drop one of the two")
        if self.label_subset is not None and not 0 < len(self.label_subset) == len(set(self.label_subset)):
            raise ConfigError("label_subset: must hold at least one label, and none twice")
        if self.dataset == "flair_iid" and self.minimum_num_datapoints_per_user > 1:
            raise ConfigError("minimum_num_datapoints_per_user: artificial users have the sizes asked for; drop it")
