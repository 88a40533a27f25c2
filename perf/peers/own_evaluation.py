"""fedflair's central evaluation of the val partition, metrics included."""

from __future__ import annotations

import resource

from fedflair.backends.threads import thread_backend
from fedflair.config.train_config import TrainConfig
from fedflair.engine.allocator import keep_freed_memory
from fedflair.evaluation.partition import score_partition
from fedflair.federated.setup import initial_state, make_setup
from peers.task import Receive, Reply, Task


def serve(task: Task, receive: Receive, reply: Reply) -> None:
    keep_freed_memory()
    config = TrainConfig.of(
        data_path=task.store_path,
        image_size=task.image_size,
        model_type=task.model_type,
        pretrained=task.weights_path is not None,
        pretrained_weights=task.weights_path,
        cohort_size=1,
        precision=task.precision,
        device=task.device,
    )
    setup = make_setup(config, noise_seed=0)
    parameters = initial_state(setup).parameters
    with thread_backend(setup.worker) as backend:
        while receive():
            score_partition(parameters, "val", setup=setup.worker, backend=backend).metrics()
            reply({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
