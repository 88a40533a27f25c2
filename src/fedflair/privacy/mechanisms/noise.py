"""The noise of a sum: a function of a secret seed, the round, and the sum itself.

Bound to the sum, the same noise is never added to two different ones: a copy of a run that goes on with another option,
another store or another version draws other noise, and the difference of two releases says nothing of a difference of
clean sums. The same round done again gives the same sum, so the same noise: a resumed run repeats none and skips none.

Drawn by numpy's Philox keyed with 128 bits, and added, in float64; then rounded to a grid that depends on the noise's
scale alone. From float32 noise, and without the grid, the values that can occur near zero would depend on the clean sum
(Mironov 2012, On Significance of the Least Significant Bits for Differential Privacy). ``torch.Generator`` would be
faster on one core, but it keeps only 32 bits of its seed, few enough to try them all, and its normals depend on the
processor's vector length.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

# Part of the definition of the noise: block k of a round has the generator's counter range number k.
_BLOCK = 1 << 20

# Steps of the grid in one to two units of the noise's scale: 2**20, of which float64 noise resolves 2**30 each.
_GRID_BITS = 20

FloatArray = npt.NDArray[np.float64]


def binding(noise_seed: int, round_: int, total: torch.Tensor, *facts: float) -> str:
    """32 hexadecimal digits for a sum and what is released with it; without the seed they say nothing of either."""
    digest = hashlib.sha256(f"fedflair noise binding\x1f{noise_seed}\x1f{round_}\x1f{facts}\x1f".encode())
    digest.update(total.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def noise_key(noise_seed: int, round_: int, bound_to: str, client: str | None = None) -> int:
    """The 128-bit key of the generator of one round's sum, or of one client's own noise in that round."""
    text = f"fedflair noise\x1f{noise_seed}\x1f{round_}"
    if client is not None:
        text = f"fedflair local noise\x1f{noise_seed}\x1f{round_}\x1f{client}"
    if bound_to:
        text += f"\x1f{bound_to}"
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:16], "little")


def noise_length(std: float, num_parameters: int, order: float = 2.0) -> float:
    """The length to expect of noise with that standard deviation an entry, in the norm that is clipped.

    Of order 2 it is Gaussian, sqrt(P) std, and so long in every draw: within 1 % for 11 million parameters. Of order 1
    it is Laplace's, P std / sqrt(2).
    """
    return num_parameters * std / math.sqrt(2) if order == 1 else math.sqrt(num_parameters) * std


def noise_over_bound(facts: Mapping[str, Any], num_parameters: int) -> float | None:
    """The length of the noise on a round's mean update over the clipping bound; None where facts do not say.

    facts: a mechanism's description, or what a summary or a ledger keeps of one.
    """
    names = ("noise_std", "clipping_bound", "cohort_size")
    values = [facts.get(name) for name in names]
    order = facts.get("order", 2.0)
    if not all(isinstance(value, int | float) and math.isfinite(value) and value > 0 for value in (*values, order)):
        return None
    std, bound, cohort_size = (float(value) for value in values if value is not None)
    return noise_length(std, num_parameters, float(order)) / (bound * cohort_size)


def local_noise_seed(noise_seed: int) -> int:
    """The seed of the clients' own noise: 128 bits that give nothing of ``noise_seed`` away, and may go to workers."""
    return int.from_bytes(hashlib.sha256(f"fedflair local seed\x1f{noise_seed}".encode()).digest()[:16], "little")


def noise_fingerprint(noise_seed: int, round_: int, bound_to: str) -> str:
    """16 hexadecimal digits that tell rounds' generators apart and give nothing of a secret seed away."""
    key = noise_key(noise_seed, round_, bound_to).to_bytes(16, "little")
    return hashlib.sha256(b"fedflair noise fingerprint\x1f" + key).hexdigest()[:16]


def add_noise(total: torch.Tensor, kind: Literal["gaussian", "laplace"], scale: float, key: int) -> torch.Tensor:
    """Adds ``scale`` times N(0, 1), or Laplace(0, 1) of variance 2, to each entry of ``total`` (float32 [P]), in place.

    Sum and noise are added in float64 and rounded to a multiple of ``grid(scale)``.
    """
    fill = _FILLS[kind]

    def add_to_block(block: int) -> None:
        part = total[block * _BLOCK : (block + 1) * _BLOCK]
        noise = np.empty(part.numel(), dtype=np.float64)
        fill(_generator(key, block), noise)
        part.copy_(on_grid(torch.from_numpy(noise).to(part.device).mul_(scale).add_(part), scale))

    _each_block(total.numel(), add_to_block)
    return total


def standard_normal(key: int, size: int) -> torch.Tensor:
    """Independent N(0, 1): float64 [size] on the CPU."""
    noise = np.empty(size, dtype=np.float64)
    _each_block(size, lambda block: _fill_normal(_generator(key, block), noise[block * _BLOCK : (block + 1) * _BLOCK]))
    return torch.from_numpy(noise)


def scalar_normal(key: int) -> float:
    """One N(0, 1), independent of the vectors of the same key."""
    # The vectors' blocks are numbered from 0, so this counter range is never theirs.
    return float(_generator(key, block=(1 << 64) - 1).standard_normal())


def scalar_normals(key: int, count: int) -> FloatArray:
    """So many independent N(0, 1), of which the first is ``scalar_normal``."""
    return np.asarray(_generator(key, block=(1 << 64) - 1).standard_normal(count))


def grid(scale: float) -> float:
    """What a release with noise of that scale is rounded to multiples of: a power of 2, the same for every sum."""
    return 2.0 ** (math.floor(math.log2(scale)) - _GRID_BITS) if scale > 0 else 2.0**-126


def scalar_on_grid(noisy: float, scale: float) -> float:
    """As ``on_grid``, of one number."""
    return round(noisy / grid(scale)) * grid(scale)


def on_grid(noisy: torch.Tensor, scale: float) -> torch.Tensor:
    """A noisy sum (float64) rounded to a multiple of ``grid(scale)``, in place."""
    return noisy.div_(grid(scale)).round_().mul_(grid(scale))


def _fill_normal(generator: np.random.Generator, out: FloatArray) -> None:
    generator.standard_normal(out=out)


def _fill_laplace(generator: np.random.Generator, out: FloatArray) -> None:
    generator.standard_exponential(out=out)
    out -= generator.standard_exponential(len(out))


_FILLS: dict[str, Callable[[np.random.Generator, FloatArray], None]] = {
    "gaussian": _fill_normal,
    "laplace": _fill_laplace,
}


def _generator(key: int, block: int) -> np.random.Generator:
    counter: Any = np.array([0, 0, 0, block], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def _each_block(size: int, work: Callable[[int], None]) -> None:
    num_blocks = -(-size // _BLOCK)
    if num_blocks <= 1:
        work(0)
        return
    # numpy fills outside the interpreter lock; which thread fills a block does not change what is in it.
    with ThreadPoolExecutor(min(num_blocks, max(torch.get_num_threads(), 1))) as pool:
        list(pool.map(work, range(num_blocks)))
