"""pfl-research 0.6 as its own FLAIR benchmark drives it: SimulatedBackend, PyTorchModel, one HDF5 read a user."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.pytorch import PyTorchFederatedDataset
from pfl.hyperparam import HyperParam, NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel

from peers.files import read_user
from peers.network import PeerNetwork
from peers.task import Receive, Reply, Task


class UserDataset(torch.utils.data.Dataset):  # type: ignore[type-arg]  # pfl indexes by user id: torch's has no such type
    """Indexed by user id, as pfl's benchmark has it."""

    def __init__(self, path: Path, num_labels: int, num_users: int) -> None:
        self.path, self.num_labels, self.num_users = path, num_labels, num_users

    def __len__(self) -> int:
        return self.num_users

    def __getitem__(self, user_id: str) -> tuple[torch.Tensor, torch.Tensor]:
        return read_user(self.path, "train", user_id, self.num_labels)


class Finished(Exception):
    """There are no more rounds to run."""


def serve(task: Task, receive: Receive, reply: Reply) -> None:
    torch.manual_seed(0)
    network = PeerNetwork(task)
    variables = [p for p in network.parameters() if p.requires_grad]
    central_optimizer = torch.optim.AdamW(variables, 0.1, eps=0.01, betas=(0.9, 0.99), weight_decay=0.0)
    model = PyTorchModel(network, torch.optim.SGD, central_optimizer)
    waiting: list[str] = []

    class CohortSize(HyperParam[int]):
        """Asked for by pfl at the beginning of a round: here the users of the next one come in."""

        def value(self) -> int:
            if not waiting:
                users = receive()
                if not users:
                    raise Finished
                waiting.extend(users)
            return len(waiting)

    # pfl has no types.
    class Answer(TrainingProcessCallback):  # type: ignore[misc]  # pfl has no types
        def after_central_iteration(
            self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
        ) -> tuple[bool, Metrics]:
            reply({})
            return False, Metrics()

    data = PyTorchFederatedDataset(UserDataset(task.pfl_path, task.num_labels, task.num_users), lambda: waiting.pop(0))
    # pfl evaluates users before and after training where the iteration divides by this: in the warm-up round only.
    parameters = NNAlgorithmParams(
        central_num_iterations=10**6, evaluation_frequency=10**6, train_cohort_size=CohortSize(), val_cohort_size=0
    )
    training = NNTrainHyperParams(
        local_learning_rate=task.learning_rate,
        local_num_epochs=task.num_epochs,
        local_batch_size=task.batch_size,
        local_max_grad_norm=task.max_grad_norm,
    )
    with suppress(Finished):
        FederatedAveraging().run(
            algorithm_params=parameters,
            backend=SimulatedBackend(training_data=data, val_data=None, postprocessors=[]),
            model=model,
            model_train_params=training,
            model_eval_params=NNEvalHyperParams(local_batch_size=task.batch_size),
            callbacks=[Answer()],
        )
