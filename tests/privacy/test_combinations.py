"""What may be combined with a mechanism and what is refused; docs/privacy.md says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedflair.backends.threads import thread_backend
from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError, FedflairError, PrivacyError
from fedflair.federated.setup import initial_state, make_setup
from fedflair.privacy.mechanisms import PrivacyOptions
from fedflair.privacy.path import make_path
from fedflair.training.round import run_round

CENTRAL = ("gaussian", "gaussian_moments_accountant", "laplace", "norm_clipping_only", "banded_matrix_factorization")
LOCAL = ("gaussian", "laplace", "norm_clipping_only")


@pytest.mark.parametrize(
    "mechanism",
    [
        *({"central_privacy_mechanism": name} for name in CENTRAL),
        *({"local_privacy_mechanism": name} for name in LOCAL),
    ],
    ids=lambda options: "-".join(options.values()),
)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weighting": "num_examples"}, "weighting: num_examples tells a user's number of images"),
        ({"weighting": "log"}, "weighting: log"),
        ({"algorithm_name": "scaffold"}, "algorithm_name: scaffold's control variates"),
        ({"algorithm_name": "central"}, "algorithm_name: central training has no clients"),
        (
            {"algorithm_name": "adafedprox", "adafedprox_metric_name": "train/loss"},
            "adafedprox_metric_name: train/loss is measured on training users without noise",
        ),
    ],
)
def test_what_would_pass_a_mechanism_by_is_refused(
    mechanism: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        TrainConfig.of(**mechanism, **options)
    assert next(iter(mechanism.values())) in str(caught.value)
    TrainConfig.of(**options)


def test_over_selection_is_refused_where_cohorts_are_accounted() -> None:
    with pytest.raises(ConfigError, match="over_selection: whose answers count would depend on the others' speed"):
        TrainConfig.of(central_privacy_mechanism="gaussian_moments_accountant", over_selection=0.3)
    TrainConfig.of(local_privacy_mechanism="gaussian", over_selection=0.3)


@pytest.mark.parametrize("mechanism", ["none", "norm_clipping_only"])
def test_a_correction_for_noise_is_refused_without_noise(mechanism: str) -> None:
    with pytest.raises(ConfigError, match=f"central_optimizer: adam_bc corrects for .* and {mechanism} adds none"):
        TrainConfig.of(central_optimizer="adam_bc", central_privacy_mechanism=mechanism)
    TrainConfig.of(central_optimizer="adam_bc", central_privacy_mechanism="gaussian")


def test_metrics_with_central_noise_are_refused_beside_a_local_promise() -> None:
    with pytest.raises(
        ConfigError, match="private_metrics: get the central noise alone, and would pass gaussian's local"
    ):
        TrainConfig.of(central_privacy_mechanism="gaussian", local_privacy_mechanism="gaussian", private_metrics=0.1)
    for share in (-0.1, 1.0):
        with pytest.raises(ConfigError, match=r"private_metrics: .* is impossible"):
            TrainConfig.of(private_metrics=share)


@pytest.mark.parametrize(
    "options",
    [
        {"dropout_rate": 0.2},
        {"algorithm_name": "fedprox"},
        {"algorithm_name": "adafedprox"},
        {"early_stopping_patience": 3},
        {"compression": "top_k"},
        {"local_evaluation": True},
        {"val_cohort_size": 5},
        {"local_privacy_mechanism": "gaussian"},
        {"cohort_sampling": "fixed"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_leaves_the_promise_alone_is_allowed(options: dict[str, Any]) -> None:
    config = TrainConfig.of(central_privacy_mechanism="gaussian_moments_accountant", **options)
    assert {name: config.option(name) for name in options} == options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mechanism": "banded_matrix_factorization", "min_separation": 2}, "cohort_sampling: banded_matrix_factor"),
        ({"mechanism": "laplace"}, "cohort_sampling: laplace noise has no accountant for fixed cohorts"),
        ({"mechanism": "gaussian_moments_accountant", "adaptive_clipping": True}, "for poisson and rotating cohorts"),
    ],
)
def test_fixed_cohorts_are_refused_where_nothing_accounts_for_them(options: dict[str, Any], message: str) -> None:
    clients = [f"user-{k}" for k in range(100)]
    with pytest.raises(FedflairError, match=message):
        make_path(
            PrivacyOptions(**options), clients, sampling="fixed", cohort_size=10, num_rounds=3, seed=0, noise_seed=1
        )


def test_cohorts_of_a_private_run_cannot_be_told_from_its_configuration() -> None:
    clients = [f"user-{k}" for k in range(100)]

    def cohorts(mechanism: str, noise_seed: int) -> list[list[str]]:
        options = PrivacyOptions(mechanism, delta=1e-3)
        path = make_path(
            options, clients, sampling="poisson", cohort_size=50, num_rounds=3, seed=0, noise_seed=noise_seed
        )
        return [path.sampler.sample(round_) for round_ in range(3)]

    for private in ("gaussian", "gaussian_moments_accountant", "laplace", "banded_matrix_factorization"):
        assert cohorts(private, 1 << 100) != cohorts(private, 2 << 100)
        assert cohorts(private, 1 << 100) == cohorts(private, 1 << 100)
    for open_to_all in ("none", "norm_clipping_only"):
        assert cohorts(open_to_all, 1 << 100) == cohorts(open_to_all, 2 << 100)


def test_the_server_sees_nothing_of_a_private_cohort_but_the_noisy_sum(tiny_config: Any) -> None:
    for name, weight in (("none", 3.0), ("gaussian_moments_accountant", 0.0)):
        setup = make_setup(tiny_config(central_privacy_mechanism=name), noise_seed=5)
        seen: list[Any] = []

        def spy(
            state: Any, mean: Any, sums: Any, seen: Any = seen, update: Any = setup.worker.algorithm.server_update
        ) -> Any:
            seen.append(sums)
            return update(state, mean, sums)

        watched = replace(
            setup, worker=replace(setup.worker, algorithm=replace(setup.worker.algorithm, server_update=spy))
        )
        with thread_backend(watched.worker) as backend:
            _, cohort_sum = run_round(
                initial_state(watched), setup.worker.clients.client_ids[:3], setup=watched, backend=backend
            )
        assert cohort_sum.metrics.num_examples > 0
        assert seen[0].weight == weight
        assert (seen[0].metrics.num_examples > 0) is (name == "none")


@pytest.mark.parametrize("change", [{"weight": 2.0}, {"extra": {"gradient": torch.ones(2)}}])
@pytest.mark.parametrize("side", ["central_privacy_mechanism", "local_privacy_mechanism"])
def test_an_algorithm_that_passes_a_mechanism_by_is_stopped(
    tiny_config: Any, side: str, change: dict[str, Any]
) -> None:
    setup = make_setup(tiny_config(**{side: "gaussian"}), noise_seed=5)
    update = setup.worker.algorithm.client_update
    greedy = replace(setup.worker.algorithm, client_update=lambda *a: replace(update(*a), **change))
    greedy_setup = replace(setup, worker=replace(setup.worker, algorithm=greedy))
    with (
        thread_backend(greedy_setup.worker) as backend,
        pytest.raises(PrivacyError, match="algorithm_name: fedavg weighs"),
    ):
        run_round(initial_state(setup), setup.worker.clients.client_ids[:3], setup=greedy_setup, backend=backend)


def test_an_update_that_the_client_rejects_is_counted_and_stays_in_the_denominator(tiny_config: Any) -> None:
    for central in ("none", "gaussian_moments_accountant"):
        setup = make_setup(
            tiny_config(central_privacy_mechanism=central, local_privacy_mechanism="gaussian"), noise_seed=5
        )
        update = setup.worker.algorithm.client_update

        def broken(model: Any, server: Any, client: Any, generator: Any, update: Any = update) -> Any:
            found = update(model, server, client, generator)
            if client.client_id.startswith("train-1"):
                found.delta[7] = float("nan")
            return found

        broken_setup = replace(
            setup, worker=replace(setup.worker, algorithm=replace(setup.worker.algorithm, client_update=broken))
        )
        with thread_backend(broken_setup.worker) as backend:
            state, cohort_sum = run_round(
                initial_state(setup), setup.worker.clients.client_ids[:3], setup=broken_setup, backend=backend
            )
        cohort = cohort_sum.cohort
        assert (cohort.num_clients, cohort.num_rejected) == (3, 1)
        # The noise on the update of zeros is longer than the central bound; one client is still one count only.
        assert cohort.num_clipped == (0 if central == "none" else 2)
        assert cohort_sum.weight == 3
        assert bool(torch.isfinite(state.parameters).all())


@pytest.fixture
def tiny_config(tiny_store: Path) -> Any:
    def config(**options: Any) -> TrainConfig:
        defaults: dict[str, Any] = {
            "data_path": tiny_store, "model": "small_cnn", "pretrained": False, "image_size": 32, "cohort_size": 3,
            "central_num_iterations": 4, "central_delta": 0.01, "device": "cpu",
        }  # fmt: skip
        return TrainConfig.of(**{**defaults, **options})

    return config


@pytest.mark.parametrize("mechanism", ["gaussian_moments_accountant", "laplace", "banded_matrix_factorization"])
def test_two_forks_of_a_run_never_share_their_noise(tiny_config: Any, mechanism: str) -> None:
    """The same secret seed, round and cohort, and another local learning rate: A - B is not of clean sums alone."""
    released = []
    for rate in (0.01, 0.1):
        setup = make_setup(tiny_config(central_privacy_mechanism=mechanism, local_learning_rate=rate), noise_seed=5)
        state, cohort = initial_state(setup), setup.worker.clients.client_ids[:3]
        keep = replace(setup.worker.algorithm, server_update=lambda state, mean, sums: replace(state, parameters=mean))
        watched = replace(setup, worker=replace(setup.worker, algorithm=keep))
        with thread_backend(watched.worker) as backend:
            after = [run_round(state, cohort, setup=watched, backend=backend)[0].parameters for _ in range(2)]
        assert torch.equal(after[0], after[1])
        released.append(after[0].double() * setup.sampler.description.cohort_size)
    noise = setup.mechanism.noise_std(state.mechanism_state, 0)
    assert float((released[0] - released[1]).std()) == pytest.approx(2**0.5 * noise, rel=0.05)
