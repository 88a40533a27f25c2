"""Users as pfl-research's FLAIR benchmark reads them: from an HDF5 file with a group a user, pixels decoded."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import torch

MAX_NUM_USER_IMAGES = 512


def read_user(
    path: Path, partition: str, user_id: str, num_labels: int, max_num_images: int | None = MAX_NUM_USER_IMAGES
) -> tuple[torch.Tensor, torch.Tensor]:
    """(pixels uint8 [n, 256, 256, 3], labels float32 [n, L]) of one user: its first images, in random order.

    The file is opened for each user, as that benchmark does, so that its loader's workers can share the dataset.
    """
    with h5py.File(path, "r") as file:
        group = file[f"{partition}/{user_id}"]
        pixels = np.array(group["images"])
        targets = np.zeros((len(pixels), num_labels), dtype=np.float32)
        targets[np.array(group["labels_row"]), np.array(group["labels_col"])] = 1
    order = np.random.permutation(len(pixels[:max_num_images]))
    return torch.as_tensor(pixels[order]), torch.as_tensor(targets[order])
