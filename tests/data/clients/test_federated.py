"""Natural and IID clients over a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedflair.data.clients.federated import fresh_iid_users, iid_users, natural_users
from fedflair.data.store.labels import label_space
from fedflair.data.store.packed import open_store
from fedflair.errors import ConfigError
from fedflair.sampling import stream


def test_natural_users_are_the_users_of_the_store(tiny_store: Path) -> None:
    store = open_store(tiny_store)
    users = natural_users(store, "train", label_space(store, fine=False))
    assert users.client_ids == [f"train-{k}@N0{k}" for k in range(6)]
    assert [users.num_images(client_id) for client_id in users.client_ids] == [1, 2, 3, 5, 9, 4]
    client = users.load("train-2@N02", None, stream(0, "load"))
    # Images 3, 4, 5 of the partition; image i has labels {i mod 4, (i i + 1) mod 4}.
    assert client.labels.tolist() == [[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]]
    assert client.images[0].tobytes() == store.partitions["train"].encoded(3).tobytes()


@pytest.mark.parametrize("distribution", ["constant", "poisson"])
def test_iid_users_hold_every_image_exactly_once(tiny_store: Path, distribution: str) -> None:
    store = open_store(tiny_store)
    users = iid_users(
        store, "train", label_space(store, fine=True), mean_num_images=5, distribution=distribution, seed=1
    )  # type: ignore[arg-type]
    images = np.concatenate([users.images_of(k) for k in range(len(users.client_ids))])
    assert sorted(images.tolist()) == list(range(24))
    if distribution == "constant":
        assert [users.num_images(client_id) for client_id in users.client_ids] == [5, 5, 5, 9]
    again = iid_users(
        store, "train", label_space(store, fine=True), mean_num_images=5, distribution=distribution, seed=1
    )  # type: ignore[arg-type]
    assert all(np.array_equal(users.images_of(k), again.images_of(k)) for k in range(len(users.client_ids)))


def test_poisson_users_have_at_least_one_image_each(tiny_store: Path) -> None:
    store = open_store(tiny_store)
    labels = label_space(store, fine=True)
    users = iid_users(store, "train", labels, mean_num_images=1, distribution="poisson", seed=1)
    sizes = [users.num_images(client_id) for client_id in users.client_ids]
    assert sum(sizes) == 24
    assert min(sizes) == 1
    # None or one drawn: 74 % of Poisson users of 1.
    assert sizes.count(1) > len(sizes) / 2


def test_too_few_images_for_one_iid_user(tiny_store: Path) -> None:
    with pytest.raises(ConfigError, match="mean_datapoints_per_user: 50 is more than the 24 images"):
        store = open_store(tiny_store)
        labels = label_space(store, fine=False)
        iid_users(store, "train", labels, mean_num_images=50, distribution="constant", seed=0)


def test_means_need_not_be_whole(tiny_store: Path) -> None:
    store = open_store(tiny_store)
    labels = label_space(store, fine=False)
    users = iid_users(store, "train", labels, mean_num_images=2.5, distribution="poisson", seed=1)
    assert sum(users.num_images(client_id) for client_id in users.client_ids) == 24
    fresh = fresh_iid_users(store, "train", labels, mean_num_images=2.5, distribution="poisson")
    assert len(fresh.client_ids) == 9


@pytest.mark.parametrize("distribution", ["constant", "poisson"])
def test_fresh_users_get_other_images_in_each_round_and_any_twice(tiny_store: Path, distribution: str) -> None:
    store = open_store(tiny_store)
    labels = label_space(store, fine=False)
    users = fresh_iid_users(store, "train", labels, mean_num_images=5, distribution=distribution)  # type: ignore[arg-type]
    assert users.client_ids == [f"iid-{k}" for k in range(4)]
    assert [users.num_images(client_id) for client_id in users.client_ids] == [5] * 4
    train = store.partitions["train"]
    place = {train.encoded(k).tobytes(): k for k in range(24)}
    drawn = []
    for round_ in range(200):
        generator = stream(0, "client", round_, "iid-1")
        client = users.load("iid-1", 8, generator)
        drawn.append([place[image.tobytes()] for image in client.images])
        assert client.labels.tolist() == [labels.targets(train, [k])[0].tolist() for k in drawn[-1]]
    sizes = [len(images) for images in drawn]
    assert sizes == [5] * 200 if distribution == "constant" else (min(sizes), max(sizes)) == (1, 8)
    # Of 24 images five with replacement: one is there twice in 1 - 24 * 23 * 22 * 21 * 20 / 24 ** 5 = 36 %.
    twice = sum(len(set(images)) < len(images) for images in drawn)
    assert 0.25 < twice / 200 < 0.47 or (distribution == "poisson" and twice > 0)
    assert len({tuple(images) for images in drawn}) > 150
    assert set().union(*drawn) == set(range(24))
    again = users.load("iid-1", 8, stream(0, "client", 0, "iid-1"))
    assert [place[image.tobytes()] for image in again.images] == drawn[0]
