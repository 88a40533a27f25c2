"""The shipped configurations: every row of the published table and every algorithm, and each of them trains."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
import torch
import torchvision

from fedflair.commands.train import parse_train_config
from fedflair.config.names import OWN_NAMES
from fedflair.config.options import PRESETS, build_config, read_options
from fedflair.config.train_config import TrainConfig
from fedflair.federated.networks import build_model
from fedflair.federated.setup import mechanisms_of
from fedflair.privacy.accounting.shown import show
from fedflair.privacy.mechanisms.noise import noise_length, noise_over_bound
from fedflair.runs.folder import RunFolder, read_summary
from fedflair.sweep.plan import plan_sweep, sweep_spec
from fedflair.training.train import train

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))
SMALL = {
    "model": "multi_label_cnn",
    "image_size": 32,
    "central_num_iterations": 2,
    "evaluation_frequency": 1,
    "cohort_size": 3,
    "mean_datapoints_per_user": 4,
    "central_batch_size": 4,
    "local_batch_size": 4,
    "device": "cpu",
    "population": 10_000_000,
    "central_delta": 5e-8,
}


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network with BatchNorm, as torchvision would have them."""
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v3_small.pth"
    torch.save(torchvision.models.get_model("mobilenet_v3_small", weights=None).state_dict(), path)
    return path


def shipped(name: str) -> TrainConfig:
    return build_config(read_options(Path(name)), name)


def test_every_row_of_the_table_and_every_algorithm_has_a_configuration() -> None:
    configs = [shipped(name) for name in NAMES if name != "demo"]
    rows = {
        (
            c.model.pretrained,
            c.data.use_fine_grained_labels,
            c.algorithm.algorithm_name,
            c.central_privacy.central_privacy_mechanism != "none",
        )
        for c in configs
    }
    settings = (("central", False), ("fedavg", False), ("fedavg", True))
    assert rows >= {(pretrained, fine, *s) for pretrained, fine, s in product((False, True), (False, True), settings)}
    assert {config.algorithm.algorithm_name for config in configs} == set(OWN_NAMES["algorithm_name"])
    for config in configs:
        assert config.evaluation.best_metric == ("micro_ap" if config.data.use_fine_grained_labels else "macro_ap")
        assert config.model.model_type == "resnet18"
        assert config.algorithm.central_num_iterations == (
            67500 if config.algorithm.algorithm_name == "central" else 5000
        )
        assert (config.central_privacy.central_epsilon, config.central_privacy.central_privacy_clipping_bound) == (
            2.0,
            0.1,
        )


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("baseline", "central", "demo")])
def test_a_configuration_says_only_what_differs_from_its_base(name: str) -> None:
    path = PRESETS / f"{name}.yaml"
    (base,) = [line.split()[1] for line in path.read_text().splitlines() if line.startswith("base:")]
    options, below = read_options(Path(name)), read_options(Path(base))
    said = [line.split(":")[0] for line in path.read_text().splitlines() if line[0] not in "#b"]
    assert all(options[option] != below.get(option) for option in said)


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_trains(name: str, tiny_store: Path, weights: Path, tmp_path: Path) -> None:
    config = shipped(name)
    network = "mobilenet_v3_small" if config.model.pretrained else "squeezenet1_1"
    options = {**SMALL, "data_path": tiny_store, "run": tmp_path / "run", "model_type": network}
    options["pretrained_weights"] = weights if config.model.pretrained else None
    run = train(build_config({**read_options(Path(name)), **options}, name))
    summary = read_summary(RunFolder(run))
    assert summary["rounds"] == 2
    assert 0 < summary["test"]["macro_ap"] <= 1
    assert (summary["privacy"] is not None) == (config.central_privacy.central_privacy_mechanism != "none")


def test_the_page_has_a_command_for_each() -> None:
    page = (ROOT / "docs" / "reproducing.md").read_text()
    for name in NAMES:
        assert name == "demo" or f"--args_config {name}`" in page or f"--args_config {name}\n" in page, name


# Of ResNet-18 with 17 outputs: trained, sent, clipped and noised.
NUM_PARAMETERS = 11_185_233
# (configuration, clients): length of the noise on a round's mean update over the clipping bound.
NOISE = {
    ("coarse_pretrained_private", 41_131): "0.365",
    ("coarse_pretrained_private", 6_918): "0.365",
    ("coarse_pretrained_private_own_users", 41_131): "11.5",
    ("coarse_pretrained_private_own_users", 6_918): "68.2",
}


def test_the_parameters_of_the_published_network() -> None:
    module = build_model(shipped("coarse_scratch_private"), 17)
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == NUM_PARAMETERS


@pytest.mark.parametrize(("name", "num_clients"), NOISE)
def test_the_page_has_the_noise_of_both_private_settings(name: str, num_clients: int) -> None:
    """A promise to FLAIR's own users takes 31 times the noise of the published setting; to IID users, 187 times."""
    config = shipped(name)
    facts = mechanisms_of(config, num_clients, noise_seed=1 << 100)[0].description
    bound = config.central_privacy.central_privacy_clipping_bound * config.cohort.cohort_size
    length = noise_length(facts["noise_std"], NUM_PARAMETERS) / bound
    assert f"{length:.3g}" == NOISE[name, num_clients]
    told = [f"`{name}`", f"{num_clients:,}", f"{facts['noise_multiplier']:.3g}", f"{length:.3g}"]
    told += [show(facts["epsilon"]), show(facts["run_epsilon"])]
    assert f"| {' | '.join(told)} |" in (ROOT / "docs" / "reproducing.md").read_text()


def demo_row(*more: str) -> dict[str, object]:
    """What a private row of ``make demo`` promises to the mini dataset's 320 training users, and its noise."""
    words = ["--args_config", "demo", "--central_privacy_mechanism", "gaussian_moments_accountant", *more]
    config = parse_train_config(words)
    facts = dict(mechanisms_of(config, 320, noise_seed=1 << 100)[0].description)
    num_parameters = sum(p.numel() for p in build_model(config, 17).parameters())
    return facts | {"length": noise_over_bound(facts, num_parameters)}


def test_the_demo_has_the_published_noise_and_a_row_that_promises_something() -> None:
    simulated = demo_row()
    assert f"{simulated['length']:.2f}" == "0.36"
    assert simulated["simulated"] is True
    makefile = (ROOT / "Makefile").read_text()
    (options,) = re.findall(r"^OWN_USERS := ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    own = demo_row(*options.replace("\\\n", " ").split()[2:])
    assert (own["simulated"], own["population"], own["users"]) == (False, 320, 320)
    assert float(str(own["delta"])) < 1 / 320
    assert f"{own['length']:.0f}" == "30"
    assert own["epsilon"] == pytest.approx(2, rel=1e-3) == own["run_epsilon"]


def test_the_sweeps_of_the_benchmarks_can_be_planned() -> None:
    expected = {"expectations": 7 * 3, "photographs_tuning": 6 * 3, "photographs": 6 * 2}
    expected |= {"private_parameters": 3 * 3 * 3, "private_parameters_tuning": 3 * 2}
    expected |= {"private_adam": 2 * 3, "private_adam_tuning": 2 * 9}
    expected |= {"private_groups": 3 * 3, "private_groups_tuning": 6, "private_choice": 4 * 2 * 3}
    for path in (ROOT / "benchmarks").glob("*.yaml"):
        trials = plan_sweep(sweep_spec({"sweep_config": str(path)}))
        assert len(trials) == expected.pop(path.stem)
        if path.stem != "expectations":
            continue
        seen = {
            t.config.algorithm.central_num_iterations * t.config.algorithm.central_batch_size
            for t in trials
            if "central" in t.point
        }
        assert seen == {80 * 20 * 4 * 8}
    assert not expected
