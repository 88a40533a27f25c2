"""What results hold, and what a process sets before it uses a GPU; streams themselves are in test_gpu.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fedflair.engine.gpu.streams import new_stream, prepare_gpu, tensors_in
from fedflair.federated.aggregate import UpdateSum
from fedflair.federated.local_metrics import LocalMetrics


@pytest.fixture(autouse=True)
def flags_as_before() -> Iterator[None]:
    with torch.backends.cudnn.flags():
        yield


def test_every_tensor_of_a_result_is_found() -> None:
    vectors = [torch.tensor([float(k)]) for k in range(5)]
    result = UpdateSum(
        vectors[0],
        metrics=LocalMetrics(1.0, 2, 3),
        extra={"control": vectors[1]},
        client_states={"someone": {"control": vectors[2]}},
    )
    assert [float(t) for t in tensors_in(result)] == [0.0, 1.0, 2.0]
    assert [float(t) for t in tensors_in([3, (vectors[3], "x"), {"y": vectors[4]}])] == [3.0, 4.0]


def test_a_gpu_is_used_repeatably() -> None:
    prepare_gpu()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert torch.backends.cuda.matmul.fp32_precision in ("none", "ieee")
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"


def test_a_cpu_has_no_streams() -> None:
    assert new_stream(torch.device("cpu")) is None
