"""What matrix products allow, on every core of the machine at once, or on its GPU."""

from __future__ import annotations

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch
from torch.nn.functional import conv2d

# ResNet-18 at 224 px: 1.82 G multiply-adds forward, as many towards the weights, and towards the inputs as many again
# but for the first layer's 0.12 G.
GFLOP_PER_IMAGE_STEP = 10.7
_SECONDS = 1.5


# Enough of them for every part of a GPU to have some.
_GPU_IMAGES = 512


def product_limits(device: str = "cpu") -> dict[str, dict[str, float]]:
    """GFLOP/s of all cores together, or of the GPU, for fp32 and bf16, in a shape of ResNet-18's.

    ``product``: ``torch.mm`` of [3136, 1152] by [1152, 128]. ``convolution``: 16 images through the convolution that is
    the same product; another library's kernels, and the faster ones in fp32 on AMD's processors. On a GPU 512 images;
    its fp32 convolution is TF32, its product is not.
    """
    rate = _rate if device == "cpu" else _gpu_rate
    return {
        name: {"product": rate(dtype, False), "convolution": rate(dtype, True)}
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }


def _gpu_rate(dtype: torch.dtype, convolution: bool) -> float:
    if convolution:
        images = torch.randn(_GPU_IMAGES, 128, 28, 28, device="cuda", dtype=dtype)
        images = images.contiguous(memory_format=torch.channels_last)
        weight = torch.randn(128, 128, 3, 3, device="cuda", dtype=dtype).contiguous(memory_format=torch.channels_last)
    else:
        left = torch.randn(_GPU_IMAGES * 784, 1152, device="cuda", dtype=dtype)
        right = torch.randn(1152, 128, device="cuda", dtype=dtype)
    gflop, repeats, rates = 2 * _GPU_IMAGES * 784 * 128 * 1152 / 1e9, 20, []
    with torch.inference_mode():
        end = time.perf_counter() + _SECONDS
        while (started := time.perf_counter()) < end:
            for _ in range(repeats):
                if convolution:
                    conv2d(images, weight, None, 1, 1)
                else:
                    torch.mm(left, right)
            torch.cuda.synchronize()
            rates.append(repeats * gflop / (time.perf_counter() - started))
    return statistics.median(rates)


def _rate(dtype: torch.dtype, convolution: bool) -> float:
    num_cores = len(os.sched_getaffinity(0))
    barrier = Barrier(num_cores)

    def work() -> float:
        torch.set_num_threads(1)
        if convolution:
            images = torch.randn(16, 128, 28, 28).to(dtype).contiguous(memory_format=torch.channels_last)
            weight = torch.randn(128, 128, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
            gflop = 2 * 16 * 28 * 28 * 128 * 1152 / 1e9
        else:
            left, right = torch.randn(3136, 1152).to(dtype), torch.randn(1152, 128).to(dtype)
            gflop = 2 * 3136 * 128 * 1152 / 1e9
        rates = []
        barrier.wait()
        end = time.perf_counter() + _SECONDS
        while (started := time.perf_counter()) < end:
            if convolution:
                conv2d(images, weight, None, 1, 1)
            else:
                torch.mm(left, right)
            rates.append(gflop / (time.perf_counter() - started))
        return statistics.median(rates)

    with ThreadPoolExecutor(num_cores) as pool, torch.inference_mode():
        return sum(future.result() for future in [pool.submit(torch.inference_mode()(work)) for _ in range(num_cores)])
