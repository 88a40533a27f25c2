"""The noise of a round: a function of (noise seed, round) alone, so that resuming neither repeats nor skips any.

Drawn by numpy's Philox keyed with 128 bits. ``torch.Generator`` would be faster on one core, but it keeps only 32 bits
of its seed, few enough to try them all, and its normals depend on the processor's vector length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

# Part of the definition of the noise: block k of a round has the generator's counter range number k.
_BLOCK = 1 << 20

FloatArray = npt.NDArray[np.float32]


def noise_key(noise_seed: int, round_: int, client: str | None = None) -> int:
    """The 128-bit key of the generator of one round's sum, or of one client's own noise in that round."""
    text = f"fedflair noise\x1f{noise_seed}\x1f{round_}"
    if client is not None:
        text = f"fedflair local noise\x1f{noise_seed}\x1f{round_}\x1f{client}"
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:16], "little")


def local_noise_seed(noise_seed: int) -> int:
    """The seed of the clients' own noise: 128 bits that give nothing of ``noise_seed`` away, and may go to workers."""
    return int.from_bytes(hashlib.sha256(f"fedflair local seed\x1f{noise_seed}".encode()).digest()[:16], "little")


def noise_fingerprint(noise_seed: int, round_: int) -> str:
    """16 hexadecimal digits that tell rounds' generators apart and give nothing of a secret seed away."""
    key = noise_key(noise_seed, round_).to_bytes(16, "little")
    return hashlib.sha256(b"fedflair noise fingerprint\x1f" + key).hexdigest()[:16]


def standard_normal(noise_seed: int, round_: int, size: int, client: str | None = None) -> torch.Tensor:
    """Independent N(0, 1): float32 [size] on the CPU."""

    def fill(generator: np.random.Generator, out: FloatArray) -> None:
        generator.standard_normal(out=out, dtype=np.float32)

    return _draw(noise_key(noise_seed, round_, client), size, fill)


def standard_laplace(noise_seed: int, round_: int, size: int, client: str | None = None) -> torch.Tensor:
    """Independent Laplace(0, 1), of variance 2: float32 [size] on the CPU."""

    def fill(generator: np.random.Generator, out: FloatArray) -> None:
        generator.standard_exponential(out=out, dtype=np.float32)
        out -= generator.standard_exponential(len(out), dtype=np.float32)

    return _draw(noise_key(noise_seed, round_, client), size, fill)


def scalar_normal(noise_seed: int, round_: int) -> float:
    """One N(0, 1) in float64, independent of the vectors of the same round."""
    # The vectors' blocks are numbered from 0, so this counter range is never theirs.
    return float(_generator(noise_key(noise_seed, round_), block=(1 << 64) - 1).standard_normal())


def _generator(key: int, block: int) -> np.random.Generator:
    counter: Any = np.array([0, 0, 0, block], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def _draw(key: int, size: int, fill: Callable[[np.random.Generator, FloatArray], None]) -> torch.Tensor:
    noise = np.empty(size, dtype=np.float32)

    def fill_block(block: int) -> None:
        fill(_generator(key, block), noise[block * _BLOCK : (block + 1) * _BLOCK])

    num_blocks = -(-size // _BLOCK)
    if num_blocks <= 1:
        fill_block(0)
    else:
        # numpy fills outside the interpreter lock; which thread fills a block does not change what is in it.
        with ThreadPoolExecutor(min(num_blocks, max(torch.get_num_threads(), 1))) as pool:
            list(pool.map(fill_block, range(num_blocks)))
    return torch.from_numpy(noise)
