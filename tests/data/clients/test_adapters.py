"""Datasets in the types of other frameworks, against the real packages."""

from __future__ import annotations

import pickle
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import fedflair.data
from fedflair.data.clients.adapters import to_flower, to_hf, to_pfl
from fedflair.data.clients.dataset import Dataset
from fedflair.data.preparation.prepare import prepare
from fedflair.data.store.packed import open_store
from fedflair.errors import ConfigError
from tests.data.releases import contents

if TYPE_CHECKING:
    from flwr.app import Context, Message

flower = pytest.mark.skipif(sys.version_info < (3, 11), reason="Flower needs Python 3.11")
pfl = pytest.mark.skipif(sys.version_info >= (3, 13), reason="pfl has no release for Python 3.13")


@pytest.fixture
def dataset(tiny_store: Path) -> Dataset:
    return fedflair.data.open(tiny_store)


@pfl
def test_pfl_s_federated_dataset_holds_the_users(dataset: Dataset) -> None:
    from pfl.data import FederatedDataset
    from pfl.data.sampling import get_user_sampler

    sampler = get_user_sampler("minimize_reuse", dataset.users["train"])
    federated = to_pfl(dataset.select_labels(["plant", "food"]), user_sampler=sampler)
    assert isinstance(federated, FederatedDataset)
    users = [user for user, _seed in federated.get_cohort(6)]
    assert [(user.user_id, len(user)) for user in users] == list(zip(dataset.users["train"], (1, 2, 3, 5, 9, 4)))
    inputs, targets = users[2].raw_data
    client = dataset.client("train-2@N02")
    np.testing.assert_array_equal(inputs.permute(0, 2, 3, 1).numpy(), client.pixels())
    assert targets.tolist() == [[1, 0], [0, 1], [0, 1]]
    assert [len(batch[0]) for batch in users[4].iter(4)] == [4, 4, 1]
    shrunk = to_pfl(dataset, "val", transform=lambda image: image[:, ::8, ::8].float())
    assert next(shrunk)[0].raw_data[0].shape[1:] == (3, 32, 32)


def context(**node_config: int) -> Context:
    from flwr.app import Context, RecordDict

    numbers = {name.replace("_", "-"): number for name, number in node_config.items()}
    return Context(run_id=1, node_id=0, node_config=numbers, state=RecordDict(), run_config={})


@flower
def test_a_flower_client_app_gets_its_node_s_photographs(dataset: Dataset) -> None:
    from flwr.app import ConfigRecord, Message, Metadata, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    load = to_flower(dataset.binary_label("animal"), "train")
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        photographs = load(context)
        batches = list(torch.utils.data.DataLoader(photographs, batch_size=4))
        animals = float(sum(targets.sum() for _, targets in batches))
        metrics = MetricRecord({"num-examples": len(photographs), "animals": animals, "batches": len(batches)})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    def reply(node: int, num_nodes: int) -> dict[str, object]:
        # As Flower's runtime hands it to a node.
        metadata = Metadata(1, "message", 0, node, "", "round 1", time.time(), 60.0, "train")
        message = Message(RecordDict({"config": ConfigRecord()}), metadata=metadata)
        return dict(app(message, context(partition_id=node, num_partitions=num_nodes)).content["metrics"])

    sizes = (1, 2, 3, 5, 9, 4)
    assert [reply(node, 6)["num-examples"] for node in range(6)] == list(sizes)
    assert [reply(node, 4)["num-examples"] for node in range(4)] == [1 + 9, 2 + 4, 3, 5]
    # Image i has animal where i mod 4 or (i i + 1) mod 4 is 0, so every fourth: 0, 4, ... 20.
    assert [reply(node, 2)["animals"] for node in range(2)] == [4, 2]
    assert reply(0, 4)["batches"] == 3


@flower
def test_a_flower_node_s_photographs_can_be_sent_to_its_process(dataset: Dataset) -> None:
    photographs = to_flower(dataset, "test")(context(partition_id=1, num_partitions=2))
    arrived = pickle.loads(pickle.dumps(photographs))
    assert arrived.image_ids().tolist() == list(range(37, 42))


@flower
@pytest.mark.parametrize(
    ("node_config", "message"),
    [
        ({"partition_id": 0}, "node_config has no 'num-partitions'"),
        ({"partition_id": 0, "num_partitions": 7}, "num-partitions 7 for 6 users"),
        ({"partition_id": 3, "num_partitions": 3}, "partition-id 3 of num-partitions 3"),
    ],
)
def test_nodes_that_cannot_be_served(dataset: Dataset, node_config: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        to_flower(dataset)(context(**node_config))


def test_hugging_face_s_dataset_is_what_the_hub_has(dataset: Dataset, tiny_store: Path, tmp_path: Path) -> None:
    for partition in ("train", "val", "test"):
        table = to_hf(dataset, partition, cache_dir=tmp_path / "cache")
        table.to_parquet(tmp_path / "hub" / "data" / f"{partition}-00000-of-00001.parquet")
    assert table.column_names == ["user_id", "image_id", "labels", "partition", "fine_grained_labels", "image"]
    assert (table.num_rows, str(table.split)) == (9, "test")
    row = table[1]
    client = dataset.client("test-0@N00")
    assert (row["user_id"], row["image_id"]) == ("test-0@N00", 34)
    assert row["labels"] == list(client.names(fine=False)[1])
    np.testing.assert_array_equal(np.asarray(row["image"]), client.pixels()[1])
    prepare(source=tmp_path / "hub", output=tmp_path / "again.hdf5")
    # Labels are numbered anew, in the order of their names.
    one, other = (contents(open_store(path)) for path in (tmp_path / "again.hdf5", tiny_store))
    assert list(one) == list(other) == list(range(42))
    assert all([*map(sorted, one[k][2:4]), one[k][4]] == [*map(sorted, other[k][2:4]), other[k][4]] for k in one)
    assert all(one[k][:2] == other[k][:2] for k in one)


def test_selected_labels_and_a_changed_selection_are_seen(dataset: Dataset, tmp_path: Path) -> None:
    one = to_hf(dataset.binary_label("plant"), "val", cache_dir=tmp_path)
    other = to_hf(dataset.fine_grained().select_labels(["cat"]), "val", cache_dir=tmp_path)
    assert {name for names in one["labels"] for name in names} == {"plant"}
    assert {name for names in one["fine_grained_labels"] for name in names} > {"cat", "dog"}
    assert {name for names in other["fine_grained_labels"] for name in names} == {"cat"}
    assert {name for names in other["labels"] for name in names} == {"animal", "food", "outdoor", "plant"}
