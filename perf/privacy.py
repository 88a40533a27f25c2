"""What privacy costs in time: calibration of each shipped configuration, and the mechanism's share of a round.

    python perf/privacy.py                    # the CPU, or the GPU where there is one
    python perf/privacy.py --device cpu
    python perf/privacy.py --calibration      # calibrations only

Each setting of privacy that is shipped is calibrated for natural and for artificial users, with an empty cache: seconds
of the processor, which other work on the machine does not lengthen.

A round is 200 clients of FLAIR's mean size (8.41 training images each, 2 local epochs, batches of 16) on ResNet-18 at
224 pixels. Training is timed on single steps and scaled up to the round; data loading, aggregation and evaluation are
left out, which is against the mechanism. The mechanism is timed whole: 200 clips, one noise, one ledger line. Noise
that is correlated over rounds is timed too, and the slowest one counts; so is the drawing of a cohort by coins that
stay apart, and what its accountant takes once.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torchvision.models import resnet18

from fedflair.config.options import PRESETS, build_config, read_options
from fedflair.federated.privacy_options import privacy_options
from fedflair.privacy.contract import PersonImages
from fedflair.privacy.ledger import record as ledger
from fedflair.privacy.mechanisms import CohortStats, PrivacyOptions, make_mechanism
from fedflair.privacy.mechanisms.separated_sampling import b_min_separation_sampler
from fedflair.sampling import SamplerDescription

IMAGES_PER_CLIENT = 345_879 / 41_131
NUM_EPOCHS = 2
BATCH_SIZE = 16
LIMIT = 0.03
# Noise that is correlated over rounds, and the vectors that it keeps; None is its own choice.
CORRELATED = {
    "banded_matrix_factorization": 8,
    "banded_inverse_square_root": 8,
    "buffered_linear_toeplitz": None,
    "tree_aggregation": None,
}
CALIBRATION_LIMIT = 5.0
# FLAIR's training users, artificial ones of 50 images, and the images of a person: their mean, and many.
NATURAL, ARTIFICIAL, IMAGES = 41_131, 6_918, PersonImages(345_879 / 41_131, 500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--num_clients", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--calibration", action="store_true")
    arguments = parser.parse_args()
    slowest = max(calibrations())
    verdict = "ok" if slowest <= CALIBRATION_LIMIT else "TOO SLOW"
    print(f"slowest calibration    {slowest:8.2f} s (limit {CALIBRATION_LIMIT:g} s): {verdict}")
    if arguments.calibration:
        return
    device = torch.device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        import dp_accounting  # noqa: F401 - its import is no part of calibration

        # The published private setting: the noise of 5,000 of 41,131 users on cohorts of 200, over 5,000 rounds.
        options = PrivacyOptions("gaussian_moments_accountant", noise_cohort_size=5000)
        sampler = SamplerDescription("poisson", arguments.num_clients, 41_131)

        def calibrate() -> None:
            make_mechanism(options, sampler, 5000, 1)

        first, second = seconds(calibrate, device), seconds(calibrate, device)
        print(
            f"calibration            {first:8.3f} s, from the cache {second:.4f} s: {first / second:.0f} times faster"
        )
        mechanism = make_mechanism(options, sampler, 5000, 1)
        model = resnet18(num_classes=17).to(device).train()
        num_parameters = sum(p.numel() for p in model.parameters())
        update = torch.randn(num_parameters, device=device)
        total = torch.zeros(num_parameters, device=device)
        book = ledger.create(Path(folder), mechanism, 1, "perf")
        ledger.append(
            book, 0, CohortStats(200, 0, 0), {}, mechanism.init(0)
        )  # computes the first epsilon, which the cache then has

        def write_line() -> None:
            Path(folder, ledger.FILE_NAME).unlink()
            book = ledger.create(Path(folder), mechanism, 1, "perf")
            ledger.append(book, 0, CohortStats(200, 0, 0), {}, mechanism.init(0))

        def repeat(action: Callable[[], object]) -> float:
            action()
            return statistics.median(seconds(action, device) for _ in range(arguments.repeats))

        clip = repeat(lambda: mechanism.clip(update.fill_(1.0), 0.1))
        noises = {mechanism.name: repeat(lambda: mechanism.add_noise(total, CohortStats(200, 0, 0), 0, {}))}
        for name, num_buffers in CORRELATED.items():
            noises[name] = repeat(noisy_round(name, num_buffers, total))
        noise = max(noises.values())
        line = repeat(write_line)
        accounted, draw = apart(arguments.num_clients, repeat)
        step = repeat(training_step(model, device))
    training = step / BATCH_SIZE * IMAGES_PER_CLIENT * NUM_EPOCHS * arguments.num_clients
    mechanism_seconds = clip * arguments.num_clients + noise + draw + line
    print(f"parameters             {num_parameters:,} on {device}, {torch.get_num_threads()} threads")
    print(f"clip of one update     {clip * 1e3:8.2f} ms, {arguments.num_clients} a round")
    for name, taken in noises.items():
        print(f"noise                  {taken * 1e3:8.2f} ms, once a round, {name}")
    print(f"cohort                 {draw * 1e3:8.2f} ms, once a round, b_min_separation, of {NATURAL:,} users")
    print(f"its calibration        {accounted:8.2f} s of the processor, once, 5,000 rounds")
    print(f"ledger line            {line * 1e3:8.2f} ms, once a round")
    print(f"training in a round    {training:8.2f} s")
    print(f"mechanism in a round   {mechanism_seconds:8.2f} s")
    share = mechanism_seconds / training
    print(f"ratio                  {share:8.2%} (limit {LIMIT:.0%}): {'ok' if share <= LIMIT else 'TOO SLOW'}")


def noisy_round(name: str, num_buffers: int | None, total: torch.Tensor) -> Callable[[], object]:
    """A round's noise of the published setting, over cohorts that rotate; each call is the next round."""
    options = PrivacyOptions(name, noise_cohort_size=5000, num_buffers=num_buffers)
    mechanism = make_mechanism(options, SamplerDescription("rotating", 200, 41_131), 5000, 1)
    state, round_ = mechanism.init(total.numel()), 0

    def add_noise() -> None:
        nonlocal state, round_
        _, state = mechanism.add_noise(total, CohortStats(200, 0, 0), round_, state)
        round_ += 1

    return add_noise


def apart(cohort_size: int, repeat: Callable[[Callable[[], object]], float]) -> tuple[float, float]:
    """Of cohorts by coins that stay 8 rounds apart: processor seconds of calibration, seconds of drawing a cohort."""
    options = PrivacyOptions("banded_matrix_factorization", delta=1e-6, min_separation=8)
    started = time.process_time()
    make_mechanism(options, SamplerDescription("b_min_separation", cohort_size, NATURAL), 5000, 1)
    accounted = time.process_time() - started
    sampler = b_min_separation_sampler([str(number) for number in range(NATURAL)], cohort_size, 1, 8)
    rounds = itertools.count()
    return accounted, repeat(lambda: sampler.sample(next(rounds)))


def calibrations() -> list[float]:
    """Processor seconds that each shipped setting's mechanism takes with an empty cache; prints them."""
    import dp_accounting  # noqa: F401 - its import is no part of calibration

    found: dict[PrivacyOptions, float] = {}
    for path in sorted(PRESETS.glob("*.yaml")):
        config = build_config(read_options(path), str(path))
        if config.algorithm.algorithm_name == "central":
            continue
        for dataset, num_users in (("flair", NATURAL), ("flair_iid", ARTIFICIAL)):
            options = replace(
                privacy_options(config.changed(dataset=dataset)),
                mechanism="gaussian_moments_accountant",
                person_images=IMAGES if dataset == "flair_iid" else None,
            )
            if options in found:
                continue
            sampler = SamplerDescription("poisson", config.cohort.cohort_size, num_users)
            with tempfile.TemporaryDirectory() as folder:
                os.environ["XDG_CACHE_HOME"] = folder
                started = time.process_time()
                make_mechanism(options, sampler, config.algorithm.central_num_iterations, 1)
                found[options] = time.process_time() - started
            print(f"calibration            {found[options]:8.2f} s, {dataset} as in {path.stem} and those like it")
    return list(found.values())


def training_step(model: torch.nn.Module, device: torch.device) -> Callable[[], None]:
    """One local step on a batch of 16 random images, gradient clipping included."""
    images = torch.rand(BATCH_SIZE, 3, 224, 224, device=device)
    labels = torch.rand(BATCH_SIZE, 17, device=device).round()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(images), labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()

    return step


def seconds(action: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
