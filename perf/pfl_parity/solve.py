"""A process of one precision that solves cases with either tool: a line in, a file of parameters out."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

from pfl_parity.doubles import read_float32_as_float64


def main(precision: str, network: str, store: str, pfl_file: str) -> None:
    """Answers lines of JSON [case, tool, file] with a line each, when the file is written."""
    # What libraries print must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    dtype = {"float32": torch.float32, "float64": torch.float64}[precision]
    if precision == "float64":
        read_float32_as_float64()
    # After that: other modules have names of their own for what it changes.
    from pfl_parity.answer import answer

    paths = Path(store), Path(pfl_file)
    for line in sys.stdin:
        case, tool, file = json.loads(line)
        np.savez(file, **{name: tensor.numpy() for name, tensor in answer(case, tool, dtype, network, *paths).items()})
        print(json.dumps(file), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
