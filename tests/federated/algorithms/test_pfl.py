"""The algorithms against the pfl package (0.6.0) on the same tiny problem, to 1e-5."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedflair.config.train_config import TrainConfig
from fedflair.federated.algorithms.adafedprox import make as make_adafedprox
from fedflair.federated.server import ServerState
from fedflair.federated.setup import TrainingSetup
from tests.federated.algorithms.conftest import inputs_and_targets, named_parameters, network, run

pytest.importorskip("pfl", reason="the pfl package is not installed; make setup installs it")
# pfl calls torch in ways that newer releases warn about.
pytestmark = pytest.mark.filterwarnings("ignore")

NUM_ROUNDS = 3
MakeProblem = Callable[..., TrainingSetup]


class Network(nn.Module):
    """The network as pfl wants it: with a loss and metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.binary_cross_entropy_with_logits(self.inner(inputs), targets)

    def metrics(self, inputs: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        return {}


def with_pfl(
    setup: TrainingSetup, algorithm: Any, params: Callable[..., Any], optimizer: Callable[..., torch.optim.Optimizer]
) -> dict[str, torch.Tensor]:
    """The parameters by name after NUM_ROUNDS rounds of pfl over both clients."""
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam.base import NNTrainHyperParams
    from pfl.model.pytorch import PyTorchModel

    class WholeDataset(Dataset):  # type: ignore[misc]
        """Reptile trains on a part of a user and evaluates on the rest; here both are the whole."""

        def split(self, *_: Any) -> tuple[Dataset, Dataset]:
            return self, self

    config = setup.config
    data = dict(zip("ab", inputs_and_targets(setup)))
    users = FederatedDataset(
        lambda user: WholeDataset(raw_data=list(data[user]), user_id=user),
        get_user_sampler("minimize_reuse", list(data)),
    )
    module = Network()
    model = PyTorchModel(module, torch.optim.SGD, optimizer(module.parameters()))
    train_params = NNTrainHyperParams(
        local_num_epochs=config.local.local_num_epochs,
        local_learning_rate=config.local.local_learning_rate,
        local_batch_size=None,
        local_max_grad_norm=config.local.local_max_grad_norm,
    )
    algorithm.run(
        params(central_num_iterations=NUM_ROUNDS, evaluation_frequency=100, train_cohort_size=2, val_cohort_size=0),
        SimulatedBackend(users, users),
        model,
        train_params,
        send_metrics_to_platform=False,
    )
    return {name.removeprefix("inner."): p.detach().clone() for name, p in module.named_parameters()}


def assert_equal(setup: TrainingSetup, expected: dict[str, torch.Tensor]) -> None:
    ours = named_parameters(setup, run(setup, NUM_ROUNDS))
    start = dict(network().named_parameters())
    assert ours.keys() == expected.keys()
    assert max(float((ours[name] - start[name]).detach().abs().max()) for name in ours) > 0.01
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5, msg=lambda t, name=name: f"{name}: {t}")


def plain_sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1.0)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "avgm": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.9, 0.99), eps=0.01, weight_decay=0.0),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, eps=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fedavg_with_each_server_optimizer(problem: MakeProblem, name: str) -> None:
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging

    setup = problem(central_optimizer=name, learning_rate=0.1)
    assert_equal(setup, with_pfl(setup, FederatedAveraging(), NNAlgorithmParams, OPTIMIZERS[name]))


def test_clipped_local_gradients(problem: MakeProblem) -> None:
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging

    setup = problem(local_max_grad_norm=0.05)
    assert_equal(setup, with_pfl(setup, FederatedAveraging(), NNAlgorithmParams, plain_sgd))


def test_fedprox(problem: MakeProblem) -> None:
    from pfl.algorithm.fedprox import FedProx, FedProxParams

    setup = problem(algorithm_name="fedprox", mu=0.7, local_num_epochs=4)
    expected = with_pfl(setup, FedProx(), lambda **options: FedProxParams(mu=0.7, **options), plain_sgd)
    assert_equal(setup, expected)


def test_reptile(problem: MakeProblem) -> None:
    from pfl.algorithm.base import PersonalizedNNAlgorithmParams
    from pfl.algorithm.reptile import Reptile

    setup = problem(algorithm_name="reptile", learning_rate=0.3)

    def params(**options: Any) -> Any:
        return PersonalizedNNAlgorithmParams(val_split_fraction=0.5, min_train_size=1, min_val_size=1, **options)

    expected = with_pfl(setup, Reptile(), params, lambda p: torch.optim.SGD(p, lr=0.3))
    assert_equal(setup, expected)


@pytest.mark.parametrize("option", [1, 2])
def test_scaffold(problem: MakeProblem, option: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pfl 0.6.0 keeps the control variates with the sign turned (an update, not a gradient) but adds them as if it were
    not, so that they push clients apart. Handed over the other way round it computes what the paper says."""
    from pfl.algorithm.scaffold import SCAFFOLD, SCAFFOLDParams
    from pfl.data.user_state import DiskUserStateStorage
    from pfl.internal.bridge.pytorch.scaffold import PyTorchSCAFFOLDBridge

    published = PyTorchSCAFFOLDBridge.do_control_variate_sgd

    def turned(model: Any, dataset: Any, params: Any, local_c: Any, server_c: Any) -> None:
        published(model, dataset, params, local_c=server_c, server_c=local_c)

    def params(**options: Any) -> Any:
        kept = DiskUserStateStorage(str(tmp_path / "pfl"))
        return SCAFFOLDParams(
            population=2, use_gradient_as_control_variate=option == 1, user_state_storage=kept, **options
        )

    monkeypatch.setattr("torch.load", _load_any)
    setup = problem(algorithm_name="scaffold", scaffold_option=option)
    as_published = with_pfl(setup, SCAFFOLD(), params, plain_sgd)
    DiskUserStateStorage(str(tmp_path / "pfl")).clear_states()
    monkeypatch.setattr(PyTorchSCAFFOLDBridge, "do_control_variate_sgd", staticmethod(turned))
    expected = with_pfl(setup, SCAFFOLD(), params, plain_sgd)
    assert_equal(setup, expected)
    assert max(float((expected[name] - as_published[name]).abs().max()) for name in expected) > 1e-3


_torch_load = torch.load


def _load_any(path: str) -> Any:
    """pfl pickles its own classes, which torch.load has refused by default since 2.6."""
    return _torch_load(path, weights_only=False)


@given(
    st.lists(st.floats(0.0, 2.0), min_size=1, max_size=20),
    st.integers(1, 3),
    st.integers(1, 4),
    st.floats(0.01, 0.5),
    st.floats(0.0, 1.0),
)
def test_adafedprox(losses: list[float], frequency: int, decrease_after: int, step_size: float, mu: float) -> None:
    from pfl.algorithm.fedprox import AdaptMuOnMetricCallback
    from pfl.metrics import Metrics

    theirs = AdaptMuOnMetricCallback("loss", frequency, mu, step_size, decrease_after)
    config = TrainConfig.of(
        mu=mu,
        evaluation_frequency=1,
        adafedprox_metric_name="val/loss",
        adafedprox_adapt_frequency=frequency,
        adafedprox_step_size=step_size,
        adafedprox_decrease_after=decrease_after,
    )
    ours = make_adafedprox(config, 2)
    parameters = torch.zeros(1)
    state = ServerState(0, parameters, {}, ours.init(parameters), {})
    for round_, loss in enumerate(losses, 1):
        theirs.after_central_iteration(Metrics([("loss", loss)]), SimpleNamespace(), central_iteration=round_)
        state = ServerState(round_, parameters, {}, state.algorithm_state, {})
        state = ours.observe(state, {"round": round_, "val/loss": loss})
        assert math.isclose(float(state.algorithm_state["mu"]), theirs.value(), abs_tol=1e-12)
