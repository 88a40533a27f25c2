"""pfl-research's central evaluation as its FLAIR benchmark has it: the partition in memory, batches of 512."""

from __future__ import annotations

import resource

import h5py
import numpy as np
import torch
from pfl.data.dataset import Dataset
from pfl.hyperparam import NNEvalHyperParams
from pfl.metrics import StringMetricName
from pfl.model.pytorch import PyTorchModel

from peers.files import read_user
from peers.network import PeerNetwork
from peers.task import Receive, Reply, Task

EVAL_BATCH_SIZE = 512


def serve(task: Task, receive: Receive, reply: Reply) -> None:
    torch.manual_seed(0)
    network = PeerNetwork(task)
    parameters = [p for p in network.parameters() if p.requires_grad]
    model = PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(parameters, 0.1))
    with h5py.File(task.pfl_path, "r") as file:
        users = list(file["val"])
    read = [read_user(task.pfl_path, "val", user, task.num_labels, max_num_images=None) for user in users]
    images, targets = (np.concatenate([part[k].numpy() for part in read]) for k in (0, 1))
    data = Dataset(raw_data=[images, targets], eval_kwargs={"eval": True})
    options = NNEvalHyperParams(local_batch_size=EVAL_BATCH_SIZE)
    while receive():
        model.evaluate(data, lambda name: StringMetricName(str(name)), options)
        reply({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
