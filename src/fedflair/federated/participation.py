"""Who of a sampled cohort answers in a round, how long the round takes in simulated time, and what goes over the wire.

A client of speed s needs  (images * passes * client_seconds_per_image + bytes / client_bandwidth) / s  seconds, where
log s is normal with mean 0 and deviation ``client_speed_std`` and stays the client's own for the whole run. A client
that drops out is not waited for; of the others the server takes the fastest ``cohort_size`` and moves on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedflair.config.train_config import TrainConfig
from fedflair.data.clients.federated import Clients
from fedflair.federated.compression import COMPRESSIONS
from fedflair.sampling import stream


@dataclass(frozen=True)
class Participation:
    """cohort: the clients whose updates count, in the order they were sampled.

    num_dropped: clients that dropped out. num_late: clients that answered after the cohort was full.
    seconds: simulated seconds until the last answer that counts, 0 where none does.
    bytes_up: sent by the clients that count. bytes_down: sent to all that were asked.
    """

    cohort: list[str]
    num_dropped: int = 0
    num_late: int = 0
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0

    def row(self) -> dict[str, float | int]:
        """Its columns in the round's row of metrics."""
        return {
            "train/num_dropped": self.num_dropped,
            "train/num_late": self.num_late,
            "train/simulated_seconds": self.seconds,
            "train/bytes_up": self.bytes_up,
            "train/bytes_down": self.bytes_down,
        }


def num_asked(config: TrainConfig) -> int:
    """Clients that are sampled so that ``cohort_size`` of them answer in time."""
    return math.ceil(config.cohort.cohort_size * (1 + config.cohort.over_selection))


def participate(
    asked: list[str],
    round_: int,
    *,
    config: TrainConfig,
    clients: Clients,
    num_parameters: int,
    vectors_up: int,
    vectors_down: int,
) -> Participation:
    """What becomes of the clients that were asked in a round; depends on (seed, round, client) alone.

    vectors_up: vectors of ``num_parameters`` that a client sends; the first of them is the update, which may be
        compressed. vectors_down: those that it gets.
    """
    up, down = bytes_of_client(config, num_parameters, vectors_up, vectors_down)
    answers = answering(config, round_, asked)
    seconds = {client: _seconds(config, client, clients.num_images(client), up + down) for client in answers}
    cohort = answers
    if config.cohort.over_selection > 0:
        in_time = set(sorted(answers, key=lambda client: seconds[client])[: config.cohort.cohort_size])
        cohort = [client for client in answers if client in in_time]
    return Participation(
        cohort,
        len(asked) - len(answers),
        len(answers) - len(cohort),
        max((seconds[client] for client in cohort), default=0.0),
        up * len(cohort),
        down * len(asked),
    )


def bytes_of_client(config: TrainConfig, num_parameters: int, vectors_up: int, vectors_down: int) -> tuple[int, int]:
    """(bytes that a client sends, bytes that it gets) in a round; see ``participate``."""
    sent = COMPRESSIONS[config.cohort.compression].num_bytes(num_parameters, config.cohort)
    return sent + 4 * num_parameters * (vectors_up - 1), 4 * num_parameters * vectors_down


def images_trained(config: TrainConfig, num_images: int) -> int:
    """Images that the steps of a client of so many images take in a round, each as often as it is used."""
    num_images = min(num_images, config.data.max_num_user_images)
    if config.local.local_num_steps is None:
        return num_images * config.local.local_num_epochs
    return config.local.local_num_steps * min(num_images, config.batch_size)


def answering(config: TrainConfig, round_: int, asked: list[str]) -> list[str]:
    """Those of the clients asked in a round that do not drop out."""
    return [client for client in asked if not _drops_out(config, round_, client)]


def _drops_out(config: TrainConfig, round_: int, client: str) -> bool:
    rate = config.cohort.dropout_rate
    return rate > 0 and stream(config.run.seed, "dropout", round_, client).random() < rate


def _seconds(config: TrainConfig, client: str, num_images: int, num_bytes: int) -> float:
    speed = 1.0
    if config.cohort.client_speed_std > 0:
        speed = math.exp(config.cohort.client_speed_std * stream(config.run.seed, "speed", 0, client).standard_normal())
    trained = images_trained(config, num_images)
    return (trained * config.cohort.client_seconds_per_image + num_bytes / config.cohort.client_bandwidth) / speed
