"""``import fedflair``: a run made, used and scored from Python; wrong arguments; what costs nothing."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

import fedflair
from fedflair.data.images.crops import decode, eval_inputs
from fedflair.evaluation.run import score_run
from fedflair.privacy.accounting.question import answer_to, make_question
from fedflair.runs.folder import RunFolder, read_rows
from fedflair.runs.tensors import load_tensors
from tests.conftest import LABELS, jpeg
from tests.small_runs import timeless_rows

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "python.md"
SMALL: dict[str, Any] = {
    "model": "small_cnn",
    "pretrained": False,
    "image_size": 32,
    "cohort_size": 3,
    "central_num_iterations": 3,
    "evaluation_frequency": 2,
    "central_lr_num_warmup_iterations": 0,
    "device": "cpu",
}


def configuration(store: Path, run: Path, **options: Any) -> fedflair.TrainConfig:
    return fedflair.load_config(data_path=str(store), run=run, **{**SMALL, **options})


@pytest.fixture(scope="module")
def told() -> list[fedflair.RoundDone]:
    return []


@pytest.fixture(scope="module")
def run(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory, told: list[fedflair.RoundDone]) -> fedflair.Run:
    folder = tmp_path_factory.mktemp("runs") / "a<b>"
    return fedflair.train(configuration(tiny_store, folder), callback=told.append)


def test_a_configuration_is_that_of_the_command_line(tiny_store: Path) -> None:
    from fedflair.commands.train import parse_train_config

    config = fedflair.load_config("baseline", cohort_size=50, data_path=str(tiny_store), plugins="math")
    words = ["--args_config", "baseline", "--cohort_size", "50", "--data_path", str(tiny_store), "--plugins", "math"]
    assert config == parse_train_config(words)
    assert repr(fedflair.load_config(cohort_size=50, pretrained=False)) == (
        "TrainConfig.of(pretrained=False, cohort_size=50)"
    )
    with pytest.warns(UserWarning, match="^save_model_path: ignored"):
        ours = fedflair.load_config(like="pfl", save_model_path="x")
    assert ours.algorithm.like == "pfl"


def test_a_run_has_its_rows_summary_and_description(run: fedflair.Run, tiny_store: Path) -> None:
    assert [row["round"] for row in run.metrics] == [1, 2, 3]
    assert list(run.metrics) == read_rows(RunFolder(run.path))
    assert run.metrics.column("val/macro_ap") == [row["val/macro_ap"] for row in run.metrics[1:]]
    frame = run.metrics.frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["train/loss"]) == run.metrics.column("train/loss")
    assert run.summary["rounds"] == 3
    assert set(run.label_ap) == set(LABELS)
    assert run.config.option("cohort_size") == 3
    # Python has no words of a command.
    assert [entry["command"] for entry in run.environment] == [None]
    score = run.summary["test"]["macro_ap"]
    assert repr(run).endswith(f"a<b>': setting flair, rounds 3 of 3, test macro AP {score:.4f})")
    assert "a&lt;b&gt;" in run._repr_html_()
    assert "<th>round</th>" in run.metrics._repr_html_()
    assert repr(fedflair.open_run(str(run.path))) == repr(run)
    dataset = fedflair.open_store(tiny_store)
    assert repr(dataset).endswith("train 6 users 24 images, val 2 users 9 images, test 2 users 9 images; 4 labels>")


def test_a_callback_gets_each_round(run: fedflair.Run, told: list[fedflair.RoundDone]) -> None:
    assert [(done.round, done.num_rounds, done.run) for done in told] == [(k, 3, run.path) for k in (1, 2, 3)]
    assert [dict(done.metrics) for done in told] == list(run.metrics)
    assert [done.is_best for done in told].count(True) >= 1
    assert max(done.round for done in told if done.is_best) == run.summary["best_round"]


def test_its_model_is_a_plain_network_and_says_what_predict_says(
    run: fedflair.Run, tiny_store: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    (tmp_path / "broken.jpg").write_bytes(b"no photograph")
    with pytest.warns(UserWarning, match=r"broken\.jpg: .*; left out"):
        found = run.predict(tmp_path)
    assert found.names == (str(tmp_path / "1.jpg"), str(tmp_path / "2.jpg"))
    assert list(found.left_out) == [str(tmp_path / "broken.jpg")]
    assert "1 left out" in repr(found)
    model = run.model()
    assert model.labels == found.labels == LABELS
    encoded = [np.frombuffer(jpeg(number), dtype=np.uint8) for number in (1, 2)]
    inputs = eval_inputs(decode(encoded), model.preprocessing.size, model.preprocessing)
    with torch.inference_mode():
        probabilities = model.network(inputs).sigmoid().numpy()
    assert np.allclose(probabilities, found.probabilities, atol=1e-5)
    assert list(found.frame().columns) == list(LABELS)
    best = found.top(1)
    assert [row["probability"] for row in best] == found.probabilities.max(axis=1).tolist()
    assert len(run.predict(partition="val")) == 9
    assert len(model.predict(partition="val", data_path=tiny_store)) == 9
    with pytest.raises(fedflair.ConfigError, match="not both"):
        run.predict("a.jpg", partition="val")
    with pytest.raises(fedflair.ConfigError, match=r"^photographs: list is no path"):
        run.predict(["a.jpg"])  # type: ignore[arg-type] # what is to be refused
    with pytest.raises(fedflair.DataError, match="no such file"):
        fedflair.load_model(tmp_path / "none")


def test_it_is_scored_as_by_the_command(run: fedflair.Run) -> None:
    expected = score_run(run.path, "val", "last")
    for named in (run, str(run.path)):
        found = fedflair.evaluate(named, "val", checkpoint="last")
        assert (found.metrics, found.label_ap, found.facts) == (expected.metrics, expected.label_ap, expected.facts)
    assert found["macro_ap"] == expected.metrics["macro_ap"]
    assert "last model of" in repr(found)


def test_a_callback_ends_a_run_with_the_next_round_that_is_scored(
    tiny_store: Path, run: fedflair.Run, tmp_path: Path
) -> None:
    ended = fedflair.train(configuration(tiny_store, tmp_path / "run"), callback=lambda done: done.round == 1)
    assert ended.is_finished
    assert (ended.summary["rounds"], len(ended.metrics)) == (2, 2)
    # Gone on with, it is the run that nobody ended.
    again = fedflair.resume(ended)
    assert timeless_rows(again.path) == timeless_rows(run.path)


def test_what_a_callback_raises_comes_out_and_the_run_goes_on_from_there(
    tiny_store: Path, run: fedflair.Run, tmp_path: Path
) -> None:
    class Enough(Exception):
        pass

    def fail(done: fedflair.RoundDone) -> None:
        if done.round == 1:
            raise Enough("of this")

    with pytest.raises(Enough, match=r"^of this$"):
        fedflair.train(configuration(tiny_store, tmp_path / "run"), callback=fail)
    stopped = fedflair.open_run(tmp_path / "run")
    assert not stopped.is_finished
    assert "rounds 1 of 3, state not finished" in repr(stopped)
    assert load_tensors(RunFolder(stopped.path).last)[1]["round"] == 1
    with pytest.raises(fedflair.DataError, match="the run has not ended"):
        _ = stopped.summary
    assert timeless_rows(fedflair.resume(stopped.path).path) == timeless_rows(run.path)
    with pytest.raises(fedflair.ConfigError, match=r"callback: returned 0\.5; return True to end the run"):
        fedflair.resume(_again(tiny_store, tmp_path / "other"), callback=lambda done: 0.5)  # type: ignore[arg-type, return-value] # refused


def _again(store: Path, folder: Path) -> Path:
    """A run that was stopped after its first round."""

    def stop(done: fedflair.RoundDone) -> None:
        raise KeyboardInterrupt

    with pytest.raises(fedflair.Interrupted, match="continue with: fedflair train --resume"):
        fedflair.train(configuration(store, folder), callback=stop)
    return folder


WRONG: dict[str, Callable[[], object]] = {
    "cohort_siz: unknown option; did you mean cohort_size?": lambda: fedflair.load_config(cohort_siz=5),
    "args_config: baselin: no such file, nor a shipped configuration": lambda: fedflair.load_config("baselin"),
    "cohort_size.*many": lambda: fedflair.load_config(cohort_size="many"),
    "cohort_size.*2.5": lambda: fedflair.load_config(cohort_size=2.5),
    "cohort_size: 0 is impossible": lambda: fedflair.load_config(cohort_size=0),
    "cohort_size: null is no value": lambda: fedflair.load_config(cohort_size=None),
    "dataset.*flai": lambda: fedflair.load_config(dataset="flai"),
    "mu: has no effect with algorithm_name fedavg": lambda: fedflair.load_config(mu=1.0),
    "args_config: int is no file": lambda: fedflair.load_config(3),  # type: ignore[arg-type] # refused
    "resume: .*fedflair.resume": lambda: fedflair.load_config(resume=True, run="runs/x"),
    "config: str is no configuration": lambda: fedflair.train("baseline"),  # type: ignore[arg-type] # refused
    "callback: int cannot be called": lambda: fedflair.train(fedflair.load_config(), callback=3),  # type: ignore[arg-type] # refused
    "chort: unknown option": lambda: fedflair.resume("runs/x", chort=1),
    "partition.*tset": lambda: fedflair.evaluate("runs/x", "tset"),
    "path: int is no path": lambda: fedflair.open_run(3),  # type: ignore[arg-type] # refused
    "mechanism.*gauss": lambda: fedflair.epsilon(rounds=1, delta=0.1, epsilon=1, mechanism="gauss"),  # type: ignore[arg-type] # refused
    "rounds.*ten": lambda: fedflair.epsilon(rounds="ten", delta=0.1, epsilon=1),  # type: ignore[arg-type] # refused
    "sampling_rate: give either": lambda: fedflair.epsilon(rounds=1, delta=0.1, epsilon=1),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_are_configuration_errors(message: str) -> None:
    with pytest.raises(fedflair.ConfigError, match=message) as raised:
        WRONG[message]()
    assert "\n" not in str(raised.value)


def test_the_accountants_answer_is_a_value() -> None:
    found = fedflair.epsilon(rounds=100, delta=1e-5, cohort_size=50, population=5000_000, epsilon=2, accountant="rdp")
    question = make_question(
        mechanism="gaussian_moments_accountant", rounds=100, delta=1e-5, cohort_sampling="poisson", sampling_rate=1e-5,
        cohort_size=None, population=None, min_separation=None, neighbouring=None, accountant="rdp", epsilon=2,
        noise_multiplier=None,
    )  # fmt: skip
    assert found.noise_multiplier == answer_to(question).noise_multiplier
    assert (found.accountant, found.neighbouring, found.warnings[0][:10]) == ("rdp", "zero_out", "delta 1e-0")
    assert repr(found).startswith("<epsilon 2 at delta 1e-05 over 100 rounds of gaussian_moments_accountant, ")
    back = fedflair.epsilon(rounds=2, delta=1e-5, sampling_rate=0.5, noise_multiplier=2.0)
    assert 0 < back.epsilon < fedflair.epsilon(rounds=4, delta=1e-5, sampling_rate=0.5, noise_multiplier=2.0).epsilon
    nothing = fedflair.epsilon(rounds=1, delta=1e-5, sampling_rate=1.0, noise_multiplier=0.01, accountant="rdp")
    assert nothing.epsilon > 1000


def test_importing_it_costs_nothing() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import fedflair, sys; print(sorted(n for n in sys.modules if n.startswith('fedflair')))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "['fedflair']"
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = fedflair.trian


def test_type_checkers_are_told_of_what_there_is() -> None:
    stub = ast.parse((ROOT / "src" / "fedflair" / "__init__.pyi").read_text())
    told = {name.asname: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert told == fedflair._HOMES  # type: ignore[attr-defined] # not for users
    assert {*fedflair.__all__} == {*told, "__version__"} <= {*dir(fedflair)}


def test_every_exported_name_is_documented() -> None:
    """On the page, with all that a value has, and in a docstring of its own."""
    page = PAGE.read_text()
    for name in fedflair.__all__:
        assert re.search(rf"`(?:fedflair\.)?{name}\b", page), name
        value = getattr(fedflair, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert (inspect.getdoc(value) or "")[:5] != f"{name}("[:5], name
            assert inspect.getdoc(value), name
    for kind in (fedflair.Run, fedflair.TrainedModel, fedflair.Predictions, fedflair.Rows, fedflair.Scores):
        own = [n for n, v in vars(kind).items() if not n.startswith("_") and (callable(v) or hasattr(v, "__get__"))]
        for name in own:
            assert re.search(rf"\b{name}\b", page), f"{kind.__name__}.{name}"


USER_SCRIPT = """
import fedflair
from fedflair import train

config = fedflair.load_config("baseline", cohort_size=50)


def watch(done: fedflair.RoundDone) -> bool:
    return done.round > 3


run = train(config, callback=watch)
losses: list[object] = run.metrics.column("train/loss")
network = run.model().network
network.eval()
best: float = fedflair.evaluate(run, "test")["macro_ap"]
noise: float = fedflair.epsilon(rounds=100, delta=1e-5, sampling_rate=0.01, epsilon=2).noise_multiplier
users: dict[str, tuple[str, ...]] = fedflair.open_store("flair.hdf5").users
try:
    fedflair.open_run("runs/x").predict("photos", partition="valid")
except fedflair.ConfigError:
    pass
reveal_type(run)
"""


def test_a_users_script_is_type_checked(tmp_path: Path) -> None:
    """Under ``mypy --strict``, from elsewhere: one thing is wrong in it. Other packages' types are left out."""
    (tmp_path / "script.py").write_text(USER_SCRIPT)
    options = ["--strict", "--follow-imports=silent", "--ignore-missing-imports", "--no-site-packages"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(wrong) == 1, done.stdout
    assert 'script.py:20: error: Argument "partition" to "predict" of "Run"' in wrong[0]
    assert 'Revealed type is "fedflair.api.run.Run"' in done.stdout
