"""What a run would be, before it is: who trains what, what it sends, needs, promises, and about how long it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedflair.backends.choice import require_backend, uses_ray
from fedflair.backends.threads import thread_backend
from fedflair.config.train_config import TrainConfig
from fedflair.engine.allocator import keep_freed_memory
from fedflair.federated.participation import bytes_of_client, images_trained
from fedflair.federated.server import ServerState
from fedflair.federated.setup import TrainingSetup, initial_state, make_setup
from fedflair.runs.folder import new_run
from fedflair.training.beginning import check_beginning
from fedflair.training.timing import Speed, speed_of
from fedflair.training.words import describe_work

# Vectors of all parameters that a round holds beside the server's state: sums of groups, the mean, the next state.
_VECTORS_OF_A_ROUND = 6
_DRAWN = {"poisson": "drawn by coins", "fixed": "exactly", "rotating": "in turn", "b_min_separation": "drawn by coins"}


@dataclass(frozen=True)
class Work:
    """What a run computes. steps: images that local steps take in a round, in expectation.

    evaluations: of val, before the last ones of val and test. scored: images that are scored in the whole run.
    """

    rounds: int
    clients: int
    steps: float
    evaluations: int
    scored: int


def dry_run(config: TrainConfig) -> str:
    """Sets the run up as ``train`` does, times a few steps, and says what would run; no file is written for it.

    Published weights are not fetched. Raises what ``train`` would before its first round, but for those.
    """
    keep_freed_memory()
    require_backend(config)
    local = not config.model.pretrained or config.model.pretrained_weights is not None
    setup = make_setup(config, noise_seed=0, fixed=None if local else {})
    folder = new_run(config)
    check_beginning(setup, folder)
    state = initial_state(setup)
    work = work_of(setup)
    with thread_backend(setup.worker) as backend:
        speed = speed_of(setup, state, backend)
        facts = {
            **_users(setup),
            **_rounds(setup, state, work),
            **_cost(setup, state, work, speed, backend.num_workers),
            "run folder": f"{folder.path}, which is not made: nothing is written",
        }
        lines = [describe_work(setup, state), *(f"{name:<14}{told}" for name, told in facts.items())]
    if not local:
        lines.append(f"{'weights':<14}published ones, fetched once when the run starts; not checked here")
    return "\n".join(lines)


def work_of(setup: TrainingSetup) -> Work:
    """What the run of a set-up computes; early stopping may end it before."""
    config, clients = setup.config, setup.worker.clients
    rounds, frequency = config.algorithm.central_num_iterations, config.evaluation.evaluation_frequency
    num_images = {name: setup.worker.store.partitions[name].num_images for name in ("val", "test")}
    evaluations = math.ceil(rounds / frequency)
    scored = (evaluations + 1) * num_images["val"] + num_images["test"]
    if not setup.worker.algorithm.federated:
        return Work(rounds, 0, float(config.algorithm.central_batch_size), evaluations, scored)
    each = [images_trained(config, clients.num_images(client)) for client in clients.client_ids]
    answering = config.cohort.cohort_size * (1 - config.cohort.dropout_rate)
    return Work(rounds, config.cohort.cohort_size, answering * sum(each) / len(each), evaluations, scored)


def _users(setup: TrainingSetup) -> dict[str, str]:
    partitions = setup.worker.store.partitions
    told = [f"{name} {part.num_users:,} ({part.num_images:,} images)" for name, part in partitions.items()]
    return {"users": ", ".join(told)}


def _rounds(setup: TrainingSetup, state: ServerState, work: Work) -> dict[str, str]:
    config, algorithm = setup.config, setup.worker.algorithm
    evaluated = f"val after every {config.evaluation.evaluation_frequency}, and val and test of the best model"
    steps = f"{work.steps:,.0f} images in the local steps of a round, {work.steps * work.rounds:,.0f} in all"
    if not work.clients:
        return {"rounds": f"{work.rounds:,} of one step each; {evaluated}", "image-steps": steps}
    down_vectors = 1 + sum(tensor.ndim > 0 for tensor in state.algorithm_state.values())
    up, down = bytes_of_client(config, state.parameters.numel(), algorithm.vectors_up, down_vectors)
    drawn = _DRAWN[setup.sampler.description.kind]
    everything = (up + down) * work.clients * work.rounds
    return {
        "rounds": f"{work.rounds:,} of {work.clients:,} clients each ({drawn}); {evaluated}",
        "image-steps": steps,
        "bytes": f"a client gets {_bytes(down)} and sends {_bytes(up)} in a round; {_bytes(everything)} in all",
    }


def _cost(setup: TrainingSetup, state: ServerState, work: Work, speed: Speed, num_workers: int) -> dict[str, str]:
    partitions = setup.worker.store.partitions
    logits = 4 * setup.worker.labels.num_labels * max(partitions[name].num_images for name in ("val", "test"))
    memory = speed.memory + _VECTORS_OF_A_ROUND * 4 * state.parameters.numel() + 4 * logits
    told = f"about {_bytes(memory)} of this process" + (
        f", and {_bytes(speed.gpu_memory)} of the GPU" if speed.gpu_memory else ""
    )
    threads = f"{num_workers} {'threads' if num_workers > 1 else 'thread'} of this process"
    if not uses_ray(setup.config):
        return {"memory": told, "time": f"{_time(setup, work, speed)}; timed on {threads}"}
    return {
        "memory": f"{told}, if it trained itself; Ray's workers are processes of their own, and were not measured",
        "time": f"not known of Ray's workers, which were not started; with {threads} {_time(setup, work, speed)}",
    }


def _time(setup: TrainingSetup, work: Work, speed: Speed) -> str:
    if speed.steps is None:
        once = sum(part.num_images for part in setup.worker.store.partitions.values())
        return (
            f"about {_minutes(once / speed.scored)} once, for the features of {once:,} images "
            f"({speed.scored:,.1f} a second over {speed.num_scored:,}), if they are not there; the rounds on them "
            "take seconds and were not timed"
        )
    rounds, scoring = work.steps * work.rounds / speed.steps, work.scored / speed.scored
    return (
        f"about {_minutes(rounds + scoring)}: {_minutes(rounds)} of local steps ({speed.steps:,.1f} images a second "
        f"over {speed.num_steps:,}), {_minutes(scoring)} of evaluation ({speed.scored:,.1f} over {speed.num_scored:,})"
    )


def _minutes(seconds: float) -> str:
    if seconds < 99:
        return f"{seconds:.0f} s"
    if seconds < 5940:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
