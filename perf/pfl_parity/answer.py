"""One case, solved by one tool in the precision of the process."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from fedflair.federated.setup import initial_state, make_setup
from pfl_parity import own, theirs
from pfl_parity.cases import config_of

# Whatever the process reads for torch.float32.
_FLOAT32 = torch.zeros(0).dtype


def answer(case: str, tool: str, dtype: torch.dtype, network_name: str, store: Path, pfl_file: Path) -> own.Tensors:
    """Parameters by name: of fedflair or pfl after the rounds, or at the start of both."""
    # Both precisions begin with the weights that float32 draws.
    torch.set_default_dtype(_FLOAT32)
    setup = make_setup(config_of(case, network_name, store), noise_seed=0)
    torch.set_default_dtype(dtype)
    network = setup.worker.module.to(dtype)
    if tool == "start":
        return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    if tool == "fedflair":
        return own.solve(setup, copy.deepcopy(network))
    noise_std = setup.mechanism.noise_std(initial_state(setup).mechanism_state, 0)
    return theirs.solve(setup.config, noise_std, pfl_file, setup.worker.labels.num_labels, network)
