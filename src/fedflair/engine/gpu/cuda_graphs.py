"""Functions captured as CUDA graphs. The only file of local training that a CPU cannot run."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

# The libraries choose their kernels and take their workspaces in the first runs, which must not be captured.
_WARM_UP_RUNS = 3

# Torch allows one capture at a time in a process; other threads may launch work meanwhile.
_CAPTURING = threading.Lock()


class GraphCapture:
    """Captures the functions of one model, which run one at a time and so may share memory.

    Its stream is its own: libraries keep a workspace for each stream, and graphs that were captured on the same stream
    would write to the same workspace when they run at the same time.
    """

    def __init__(self) -> None:
        # torch declares no types for making one.
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        """Runs ``function`` a few times, then captures it; returns what runs it again, on the current stream.

        It must neither wait for the device nor allocate what outlives it, and read and write the same tensors always.
        """
        with _CAPTURING:
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UP_RUNS):
                    function()
            current.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                function()
        return graph.replay
