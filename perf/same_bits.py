"""Does a change move a bit? One hash for each algorithm, mechanism and way of training, of a short run's whole state.

    python perf/same_bits.py > before.txt    # at one commit
    python perf/same_bits.py > after.txt     # at another one, on the same machine; then: diff before.txt after.txt

Each run has three rounds of a small network on the synthetic twin. What is hashed of it: every tensor of the last
checkpoint (parameters, optimizer, algorithm, mechanism), the scores on val and test, and what was promised of privacy.
The first line names the processor: other kinds round differently.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import platform
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from fedflair.cli import main

PRIVATE = ("--noise_from_seed", "--population", "10000000", "--noise_cohort_size", "5000", "--central_delta", "5e-8")
OWN = ("--population", "48", "--noise_cohort_size", "6", "--central_delta", "1e-3")
RESNET = ("--model", "multi_label_cnn", "--local_learning_rate", "0.01")
RUNS: dict[str, tuple[str, ...]] = {
    "fedavg": (),
    "fedprox": ("--algorithm_name", "fedprox", "--mu", "0.1"),
    "adafedprox": ("--algorithm_name", "adafedprox", "--adafedprox_adapt_frequency", "1"),
    "scaffold option 1": ("--algorithm_name", "scaffold", "--scaffold_option", "1"),
    "scaffold option 2": ("--algorithm_name", "scaffold", "--scaffold_dtype", "bfloat16"),
    "reptile": ("--algorithm_name", "reptile"),
    "central": ("--algorithm_name", "central", "--central_batch_size", "64"),
    "iid users": ("--dataset", "flair_iid", "--datapoints_per_user_distribution", "poisson"),
    "adam": ("--central_optimizer", "adam", "--learning_rate", "0.1", "--central_lr_num_warmup_iterations", "1"),
    "adagrad": ("--central_optimizer", "adagrad", "--learning_rate", "0.1"),
    "yogi": ("--central_optimizer", "yogi", "--learning_rate", "0.1", "--central_lr_schedule", "cosine"),
    "avgm": ("--central_optimizer", "avgm", "--learning_rate", "0.5", "--adam_beta1", "0.5"),
    "gaussian": ("--central_privacy_mechanism", "gaussian", *PRIVATE),
    "gaussian_moments_accountant": ("--central_privacy_mechanism", "gaussian_moments_accountant", *PRIVATE),
    "adaptive clipping": (
        "--central_privacy_mechanism", "gaussian_moments_accountant", "--adaptive_clipping", *PRIVATE,
    ),
    "laplace": ("--central_privacy_mechanism", "laplace", "--noise_from_seed", *OWN),
    "banded_matrix_factorization": (
        "--central_privacy_mechanism", "banded_matrix_factorization", "--min_separation", "2", *PRIVATE,
    ),
    "norm_clipping_only": ("--central_privacy_mechanism", "norm_clipping_only"),
    "local gaussian": ("--local_privacy_mechanism", "gaussian", "--noise_from_seed"),
    "local laplace": ("--local_privacy_mechanism", "laplace", "--local_epsilon", "50", "--noise_from_seed"),
    "local norm_clipping_only": ("--local_privacy_mechanism", "norm_clipping_only"),
    "top_k": ("--compression", "top_k"),
    "quantize_8bit": ("--compression", "quantize_8bit"),
    "participation": ("--dropout_rate", "0.2", "--over_selection", "0.5", "--client_speed_std", "0.5"),
    "weighting": ("--weighting", "sqrt", "--local_momentum", "0.5", "--local_weight_decay", "0.01"),
    "local evaluation": ("--local_evaluation", "--val_cohort_size", "4"),
    "fine labels": ("--use_fine_grained_labels",),
    "bf16": ("--precision", "bf16"),
    "resnet18": (*RESNET, "--model_type", "resnet18"),
    "resnet18 bf16": (*RESNET, "--model_type", "resnet18", "--precision", "bf16"),
    "resnet18 head": (*RESNET, "--model_type", "resnet18", "--trainable", "head"),
    "squeezenet1_1": (*RESNET, "--model_type", "squeezenet1_1", "--image_size", "64"),
    "two workers": ("--workers", "2", "--algorithm_name", "scaffold"),
    "two workers, private": (
        "--workers", "2", "--central_privacy_mechanism", "gaussian_moments_accountant", *PRIVATE,
        "--local_privacy_mechanism", "norm_clipping_only",
    ),
}  # fmt: skip


def run_hash(data: Path, run: Path, options: tuple[str, ...]) -> str:
    """The hash of a run with these options on the store ``data``."""
    common = ["--args_config", "demo", "--data_path", str(data), "--cohort_size", "6", "--central_num_iterations", "3"]
    quietly(["train", *common, "--evaluation_frequency", "1", "--run", str(run), *options])
    found = hashlib.sha256()
    for name, tensor in sorted(load_file(run / "checkpoints" / "last.safetensors").items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    summary = json.loads((run / "summary.json").read_text())
    facts = {name: summary[name] for name in ("setting", "best_round", "val", "test", "privacy", "local_privacy")}
    found.update(json.dumps(facts, sort_keys=True).encode())
    return found.hexdigest()[:20]


def quietly(arguments: list[str]) -> str:
    """What a command prints on standard output. Raises SystemExit where it fails."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main(arguments)
    if status:
        raise SystemExit(f"fedflair {' '.join(arguments)} failed with {status}")
    return printed.getvalue()


def evaluation_hash(run: Path, options: tuple[str, ...]) -> str:
    """The hash of what ``evaluate --json`` says of a run, but for the run's own name."""
    facts = json.loads(quietly(["evaluate", "--run", str(run), "--json", *options]))
    facts.pop("run")
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


def show() -> None:
    """Prints a line a hash."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS), help="Some of the runs.")
    only = parser.parse_args().only
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    print(f"processor: {processor}")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "flair.hdf5")
        quietly(["synthesize", "--num_users", "60", "--output", str(data)])
        for name in only:
            print(f"{name:<28} {run_hash(data, Path(folder, name), RUNS[name])}", flush=True)
        if "fedavg" in only:
            run = Path(folder, "fedavg")
            for options in ((), ("--per_user", "--personalise_steps", "2"), ("--partition", "val")):
                print(f"{' '.join(('evaluate', *options)):<40} {evaluation_hash(run, options)}", flush=True)


if __name__ == "__main__":
    show()
