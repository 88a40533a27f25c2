"""A dataset in the types of other frameworks: pfl, Flower and Hugging Face datasets, which are imported when called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fedflair.data.clients.dataset import Dataset, ImageDataset, Transform
from fedflair.errors import ConfigError

if TYPE_CHECKING:
    import datasets
    import flwr.app
    import pfl.data


def to_pfl(
    dataset: Dataset,
    partition: str = "train",
    *,
    user_sampler: Callable[[], str] | None = None,
    transform: Transform | None = None,
) -> pfl.data.FederatedDataset:
    """A ``pfl.data.FederatedDataset`` with a user dataset for each user of a partition.

    A user dataset's tensors are the photographs, uint8 [n, 3, 256, 256] or what ``transform`` makes of each, stacked,
    and the labels, float32 [n, num_labels]. ``user_sampler`` is pfl's "random" one where none is given. A user is
    loaded whole: cap the largest with ``dataset.cap_images``.
    """
    import pfl.model.pytorch  # noqa: F401 - tells pfl that tensors are torch's
    from pfl.data import FederatedDataset
    from pfl.data.pytorch import PyTorchTensorDataset
    from pfl.data.sampling import get_user_sampler

    weights = {user_id: len(images) for user_id, images in dataset.of_partition(partition).items()}

    def make_dataset(user_id: str) -> PyTorchTensorDataset:
        client = dataset.client(user_id, transform)
        inputs, targets = zip(*(client[position] for position in range(len(client))))
        return PyTorchTensorDataset((torch.stack(inputs), torch.stack(targets)), user_id=user_id)

    sampler = user_sampler or get_user_sampler("random", list(weights))
    return FederatedDataset(make_dataset, sampler, user_id_to_weight=weights)


def to_flower(
    dataset: Dataset, partition: str = "train", *, transform: Transform | None = None
) -> Callable[[flwr.app.Context], ImageDataset]:
    """The partition function of a Flower ``ClientApp``: from the context it is called with to the node's photographs.

    Node ``partition-id`` of ``num-partitions`` has the users at positions partition-id, partition-id + num-partitions,
    ... of the partition: one each where there are as many nodes as users. Sends only indices to other processes.
    The function raises ConfigError where the context's node_config lacks the two numbers, or there are more nodes
    than users.
    """
    user_ids = list(dataset.of_partition(partition))

    def load(context: flwr.app.Context) -> ImageDataset:
        try:
            node, num_nodes = (int(context.node_config[key]) for key in ("partition-id", "num-partitions"))
        except KeyError as error:
            raise ConfigError(f"node_config has no {error}; a simulated Flower node has partition-id") from error
        if not 0 <= node < num_nodes <= len(user_ids):
            raise ConfigError(
                f"node_config: partition-id {node} of num-partitions {num_nodes} for {len(user_ids)} users; "
                "have at most as many nodes as users"
            )
        return dataset.pooled(partition, user_ids[node::num_nodes], transform)

    return load


def to_hf(dataset: Dataset, partition: str = "train", *, cache_dir: Path | None = None) -> datasets.Dataset:
    """A ``datasets.Dataset`` of a partition with the columns that FLAIR has on the Hugging Face hub.

    Photographs keep their encoded bytes. Of the kind of labels that is selected in ``dataset``, only the selected ones
    are listed. The rows are written once to an Arrow file under ``cache_dir`` (by default where that library keeps
    its files) and mapped from there, so memory does not grow with them.
    """
    import datasets

    names = datasets.List(datasets.Value("string"))
    features = datasets.Features(
        {
            "user_id": datasets.Value("string"),
            "image_id": datasets.Value("int64"),
            "labels": names,
            "partition": datasets.Value("string"),
            "fine_grained_labels": names,
            "image": datasets.Image(),
        }
    )
    clients = [dataset.client(user_id) for user_id in dataset.of_partition(partition)]
    return datasets.Dataset.from_generator(
        _hub_rows, features=features, gen_kwargs={"clients": clients}, cache_dir=cache_dir, split=partition
    )


def _hub_rows(clients: list[ImageDataset]) -> Iterator[dict[str, Any]]:
    for client in clients:
        rows = zip(client.image_ids().tolist(), client.names(fine=False), client.names(fine=True))
        for position, (image_id, labels, fine_grained_labels) in enumerate(rows):
            yield {
                "user_id": client.user_id,
                "image_id": image_id,
                "labels": labels,
                "partition": client.partition,
                "fine_grained_labels": fine_grained_labels,
                "image": {"bytes": client.encoded(position).tobytes(), "path": f"{image_id}.jpg"},
            }
