"""fedflair: the FLAIR federated-learning benchmark as software.

The names here are the Python interface (docs/python.md). Each is imported when it is first asked for, so that
``import fedflair`` costs nothing; ``__init__.pyi`` tells type checkers and editors what they are.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# What is exported -> the module that it is in.
_HOMES = {
    "Epsilon": "fedflair.api.accounting",
    "epsilon": "fedflair.api.accounting",
    "TrainConfig": "fedflair.config.train_config",
    "load_config": "fedflair.api.configuration",
    "Run": "fedflair.api.run",
    "open_run": "fedflair.api.run",
    "train": "fedflair.api.run",
    "resume": "fedflair.api.run",
    "RoundDone": "fedflair.training.callback",
    "Rows": "fedflair.api.rows",
    "TrainedModel": "fedflair.api.trained",
    "load_model": "fedflair.api.trained",
    "Predictions": "fedflair.api.predictions",
    "Scores": "fedflair.api.scores",
    "evaluate": "fedflair.api.scores",
    "Dataset": "fedflair.data.clients.dataset",
    "open_store": "fedflair.api.store",
    **dict.fromkeys(
        (
            "FedflairError",
            "UsageError",
            "ConfigError",
            "DataError",
            "DiskError",
            "PrivacyError",
            "WorkerError",
            "Interrupted",
        ),
        "fedflair.errors",
    ),
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fedflair' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
