"""The page of the Python API: every public name, whose docstring the site shows, or refuses to be built without."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from typing import Any

import fedflair


@dataclass(frozen=True)
class Section:
    """Names on the page under one heading. words: what they are for. members: whether their members are shown."""

    title: str
    words: str
    names: tuple[str, ...]
    members: bool = True


SECTIONS = (
    Section(
        "The data",
        "Users and photographs of a packed store, for your own code; [Your photographs, and FLAIR](data.md) uses them.",
        (
            "fedflair.data.open",
            "fedflair.data.clients.dataset.Dataset",
            "fedflair.data.clients.dataset.ImageDataset",
            "fedflair.data.clients.adapters.to_pfl",
            "fedflair.data.clients.adapters.to_flower",
            "fedflair.data.clients.adapters.to_hf",
            "fedflair.evaluation.exported.load_network",
        ),
    ),
    Section(
        "A training's options",
        "`TrainConfig.of(cohort_size=50)` takes options by their published names; these are its groups.",
        (
            "fedflair.config.train_config.TrainConfig",
            "fedflair.config.groups.data.DataOptions",
            "fedflair.config.groups.model.ModelOptions",
            "fedflair.config.groups.algorithm.AlgorithmOptions",
            "fedflair.config.groups.cohort.CohortOptions",
            "fedflair.config.groups.local.LocalTrainingOptions",
            "fedflair.config.groups.server.ServerOptions",
            "fedflair.config.groups.evaluation.EvaluationOptions",
            "fedflair.config.groups.central_privacy.CentralMechanismOptions",
            "fedflair.config.groups.local_privacy.LocalMechanismOptions",
            "fedflair.config.groups.run.RunOptions",
            "fedflair.config.groups.hardware.HardwareOptions",
        ),
    ),
    Section(
        "What can be added",
        "What an entry of each table is; [Extending fedflair](extending.md) makes one and puts it in.",
        (
            "fedflair.federated.algorithms.base.Algorithm",
            "fedflair.federated.client.ClientUpdate",
            "fedflair.federated.client.train_locally",
            "fedflair.federated.server.ServerState",
            "fedflair.federated.server.ServerOptimizer",
            "fedflair.federated.compression.Compression",
            "fedflair.privacy.contract.Mechanism",
            "fedflair.privacy.contract.Clipping",
            "fedflair.data.images.preprocessing.Preprocessing",
            "fedflair.data.sources.records.Source",
            "fedflair.data.sources.records.Record",
            "fedflair.sampling.stream",
        ),
    ),
    Section(
        "Errors",
        "Each message is one line that names what is wrong, where, and what to do.",
        (
            "fedflair.errors.FedflairError",
            "fedflair.errors.UsageError",
            "fedflair.errors.ConfigError",
            "fedflair.errors.DataError",
            "fedflair.errors.DiskError",
            "fedflair.errors.PrivacyError",
            "fedflair.errors.WorkerError",
            "fedflair.errors.Interrupted",
        ),
    ),
)


def sections() -> list[Section]:
    """Those above, under what ``import fedflair`` itself offers, as its ``__all__`` says."""
    offered = tuple(f"fedflair.{name}" for name in getattr(fedflair, "__all__", ()) if not name.startswith("__"))
    if not offered:
        return [*SECTIONS]
    words = "What `import fedflair` offers; [fedflair in Python](python.md) uses it."
    first = Section("fedflair", words, offered)
    known = {resolved(name) for name in offered}
    return [first, *(section for section in (_without(section, known) for section in SECTIONS) if section.names)]


def _without(section: Section, known: set[int]) -> Section:
    names = tuple(name for name in section.names if resolved(name) not in known)
    return Section(section.title, section.words, names, section.members)


def home(name: str) -> str:
    """Where the object of a dotted name is defined, as what is imported late is found by its home only."""
    thing = found(name)
    module, own = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    return f"{module}.{own}" if module and own else name


def resolved(name: str) -> int:
    """Which object a dotted name is."""
    return id(found(name))


def found(name: str) -> Any:
    """The object of a dotted name. Raises LookupError where there is none."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise LookupError(f"{name}: named on the page of the Python API, and not there") from error


def undocumented(names: tuple[str, ...]) -> list[str]:
    """Those names, and public methods of theirs, that have no docstring of their own."""
    missing = []
    for name in names:
        thing = found(name)
        members = vars(thing).items() if inspect.isclass(thing) else ()
        fields = getattr(thing, "__dataclass_fields__", {})
        public = [(f"{name}.{key}", value) for key, value in members if not key.startswith("_") and key not in fields]
        for shown, value in [(name, thing), *(pair for pair in public if _is_method(pair[1]))]:
            if not _doc(value):
                missing.append(shown)
    return missing


def _doc(value: object) -> str:
    """A docstring that somebody wrote: a dataclass without one has its signature there."""
    code = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
    doc = (getattr(code, "__doc__", None) or "").strip()
    return "" if doc.startswith(f"{getattr(code, '__name__', '')}(") else doc


def _is_method(value: object) -> bool:
    return inspect.isfunction(value) or isinstance(value, (property, classmethod, staticmethod))


def page() -> str:
    """The page as Markdown, with a directive of mkdocstrings for each name. Raises ValueError for undocumented ones."""
    lines = ["# The Python API", ""]
    shown = sections()
    if missing := undocumented(tuple(name for section in shown for name in section.names)):
        raise ValueError(f"public names without a docstring: {', '.join(missing)}")
    for section in shown:
        lines += [f"## {section.title}", "", section.words, ""]
        lines += [f"::: {home(name)}" for name in section.names]
        lines += [""]
    return "\n\n".join("\n".join(lines).split("\n")) + "\n"
