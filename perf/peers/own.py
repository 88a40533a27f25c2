"""fedflair itself: its own ``run_round``, with the cohort that it is told instead of a drawn one."""

from __future__ import annotations

from dataclasses import replace

from fedflair.backends.threads import thread_backend
from fedflair.config.train_config import TrainConfig
from fedflair.engine.allocator import keep_freed_memory
from fedflair.evaluation.features import with_features
from fedflair.federated.setup import initial_state, make_setup
from fedflair.training.round import run_round
from peers.phases import Phases
from peers.task import Receive, Reply, Task


def serve(task: Task, receive: Receive, reply: Reply) -> None:
    keep_freed_memory()
    # On a GPU the time of a call says nothing of the work that it asked for; of a head, timing would be most of it.
    phases = Phases() if task.device == "cpu" and task.trainable == "all" else None
    config = TrainConfig.of(
        data_path=task.store_path,
        image_size=task.image_size,
        model_type=task.model_type,
        pretrained=task.weights_path is not None,
        pretrained_weights=task.weights_path,
        cohort_size=1,
        local_learning_rate=task.learning_rate,
        local_num_epochs=task.num_epochs,
        local_batch_size=task.batch_size,
        local_max_grad_norm=task.max_grad_norm,
        central_num_iterations=10**6,
        precision=task.precision,
        device=task.device,
        num_threads=task.in_flight,
        cuda_graphs=task.cuda_graphs,
    )
    if task.trainable == "head":
        config = config.changed(trainable="head", local_augmentation="none")
    setup = with_features(make_setup(config, noise_seed=0))
    # Past the warm-up, in whose first round the server does not move.
    state = replace(initial_state(setup), round=1000)
    with thread_backend(setup.worker) as backend:
        while users := receive():
            state, _ = run_round(state, users, setup=setup, backend=backend)
            reply({"phases": phases.take()} if phases else {})
