"""What a run says to its user: what it is before round 1, and how to go on after a stop."""

from __future__ import annotations

from fedflair.engine.cpu.words import describe
from fedflair.errors import FedflairError, Interrupted
from fedflair.federated.frozen_features import trains_on_features
from fedflair.federated.server import ServerState
from fedflair.federated.setup import TrainingSetup
from fedflair.models.preprocessing import preprocessing_of
from fedflair.privacy.accounting.shown import noise_sentence
from fedflair.privacy.mechanisms.auto import choice_lines
from fedflair.privacy.mechanisms.noise import noise_length
from fedflair.runs.folder import RunFolder
from fedflair.training.run_states import describe_states

_LIKE_PFL = (
    "like pfl: one order of a user's images for all epochs of a round, IID users drawn anew in each round, the last "
    "round's rate above its end; cohorts still hold nobody twice (docs/reproducing.md)"
)


def describe_setup(setup: TrainingSetup, state: ServerState, folder: RunFolder) -> str:
    """What a run says of itself before it goes on from ``state``; within its backend, whose kernels it names."""
    return f"{describe_work(setup, state)}\nrun folder: {folder.path}"


def describe_work(setup: TrainingSetup, state: ServerState) -> str:
    """The same without the place: on what, with which network and kernels, and what is promised."""
    config, worker = setup.config, setup.worker
    sizes = {
        trained: sum(p.numel() for p in worker.module.parameters() if p.requires_grad == trained)
        for trained in (True, False)
    }
    start = "pretrained" if config.model.pretrained else "from scratch"
    network = config.model.model_type if config.model.model == "multi_label_cnn" else config.model.model
    side = config.data.image_size or preprocessing_of(worker.module).size
    clients = (
        f"{len(worker.clients.client_ids):,} clients"
        if worker.algorithm.federated
        else f"{config.algorithm.central_batch_size:,} images a step"
    )
    num_images = worker.store.partitions["train"].num_images
    lines = [
        f"{config.setting}: {clients}, {num_images:,} images, {worker.labels.num_labels} labels",
        f"{network} {start}, {_how_many(sizes[True], sizes[False])}, {side} px, {worker.device}",
    ]
    if worker.on_features is not None:
        found = worker.on_features
        lines.append(f"frozen features: {found.cut.dimension:,} numbers an image, {found.kind}, in {found.folder}")
    elif trains_on_features(config):
        lines.append("frozen features: none, as this network does more after its head; computed anew in every step")
    if worker.device.type == "cpu":
        lines.append(describe(worker.module, config.hardware.precision))
    if config.algorithm.like == "pfl":
        lines.append(_LIKE_PFL)
    if promise := promise_words(setup):
        lines.append(promise)
    if table := setup.mechanism.description.get("chosen_from"):
        lines += [f"auto chose {setup.mechanism.name} of (in clipping bounds):", *choice_lines(table)]
    if noise := noise_words(setup, state):
        lines.append(noise)
    if worker.algorithm.keeps_client_state:
        lines.append(describe_states(setup))
    return "\n".join(lines)


def _how_many(num_trained: int, num_frozen: int) -> str:
    """Parameters of the network: all, or those of them that are trained, sent, clipped and noised."""
    if num_frozen == 0:
        return f"{num_trained:,} parameters"
    return f"{num_trained:,} trained parameters of {num_trained + num_frozen:,}"


def promise_words(setup: TrainingSetup) -> str:
    """What the run's mechanisms say of themselves, a line each."""
    described = (setup.mechanism.description, setup.worker.local_mechanism.description)
    return "\n".join(str(facts["words"]) for facts in described if facts.get("words"))


def noise_words(setup: TrainingSetup, state: ServerState) -> str:
    """How long the noise of the next round is beside the longest update of a client; nothing where there is none."""
    mechanism, before = setup.mechanism, state.mechanism_state
    std = mechanism.noise_std(before, state.round)
    if not std > 0:
        return ""
    num_parameters = state.parameters.numel()
    order = float(mechanism.description.get("order", 2.0))
    bound = mechanism.clipping_bound(before) * setup.sampler.description.cohort_size
    return noise_sentence(noise_length(std, num_parameters, order) / bound, num_parameters)


def to_be_continued(error: FedflairError, folder: RunFolder, round_: int) -> FedflairError:
    """The error that ends the run, with how to go on from the checkpoint of ``round_``."""
    why = "" if isinstance(error, Interrupted) else f"{error}; "
    return type(error)(f"{why}stopped after round {round_}; {how_to_go_on(folder)}")


def lost_words(folder: RunFolder) -> str:
    what = (
        "the run's process ended at once: killed, out of memory, or Ray's own process of this machine (raylet) was lost"
    )
    return f"fedflair: {what}; {how_to_go_on(folder)}"


def how_to_go_on(folder: RunFolder) -> str:
    """The command that continues a run from its last checkpoint."""
    return f"continue with: fedflair train --resume --run {folder.path}"
