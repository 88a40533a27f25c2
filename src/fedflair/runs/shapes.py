"""The shapes of a run folder's files: what each must be for its readers, checked once where it is read.

Each function says in a few words what is wrong with a value, naming the field; '' where nothing is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_MODELS = ("global", "personalised")


def config_problem(value: Any) -> str:
    """Of ``config.yaml``: options by name, each a value or a list of values."""
    if not isinstance(value, dict):
        return "not a mapping of options"
    for name, option in value.items():
        if not isinstance(name, str):
            return f"{name!r} is no option's name"
        if not _is_scalar(option) and not (isinstance(option, list) and all(map(_is_scalar, option))):
            return f"{name} has a value of its own parts"
    rounds = value.get("central_num_iterations", 0)
    return "" if is_whole(rounds) else f"central_num_iterations is {rounds!r}, and must be a whole number"


def row_problem(value: Any) -> str:
    """Of a line of ``metrics.jsonl``: numbers by name, among them ``round``."""
    if not isinstance(value, dict):
        return "not a row of metrics"
    if not is_whole(value.get("round")):
        return "no whole number called round"
    return next(
        (f"{name} is no number" for name, item in value.items() if not (type(item) is float or _is_cell(item))), ""
    )


def summary_problem(value: Any) -> str:
    """Of ``summary.json``: what every reader of finished runs counts on."""
    if not isinstance(value, dict):
        return "not a run's summary"
    for name, is_sound in _SUMMARY.items():
        if name not in value:
            return f"no field {name}"
        if not is_sound(value[name]):
            return f"{name} is not what it should be"
    local = value.get("local_privacy")
    return "" if local is None or _is_privacy(local) else "local_privacy is not what it should be"


def label_ap_problem(value: Any) -> str:
    """Of ``label_ap.json``: a number or null by the label's name."""
    return "" if _are_numbers(value) else "not a number or null by label"


def test_details_problem(value: Any) -> str:
    """Of ``test_details.json``: metrics without each group of users, by name, and lists of photographs by kind."""
    if not isinstance(value, dict):
        return "not the details of a test"
    left_out, examples = value.get("left_out"), value.get("examples")
    if not isinstance(left_out, dict) or not all(map(_is_list_of_numbers, left_out.values())):
        return "left_out is not lists of numbers by metric"
    if not isinstance(examples, dict) or not all(isinstance(many, list) for many in examples.values()):
        return "examples is not lists by kind"
    return "" if all(_is_example(one) for many in examples.values() for one in many) else "an example lacks its parts"


def environment_problem(value: Any) -> str:
    """Of ``environment.json``: a list of entries, each of values by name."""
    is_list = isinstance(value, list) and all(isinstance(entry, dict) for entry in value)
    return "" if is_list else "not a list of entries"


def user_problem(value: Any) -> str:
    """Of a line of ``per_user_PARTITION.jsonl``: a user's scores, and those of two models where there are such."""
    if not isinstance(value, dict):
        return "not a user's row"
    for name in _MODELS:
        if value.get(name) is not None and not _are_numbers(value[name]):
            return f"{name} is not a model's scores"
    if "micro_ap" not in value:
        return "no field micro_ap"
    return "" if _is_number_or_none(value["micro_ap"]) else "micro_ap is no number"


def sweep_problem(value: Any) -> str:
    """Of ``sweep.json``: points by name, each with the folders and seeds of its runs."""
    if not isinstance(value, dict) or not isinstance(value.get("points"), list):
        return "no list called points"
    for number, point in enumerate(value["points"], 1):
        if not isinstance(point, dict) or not isinstance(point.get("point"), str):
            return f"point {number} has no name"
        runs = point.get("runs")
        if not isinstance(runs, list) or not all(map(_is_run_of_sweep, runs)):
            return f"point {number} has no list of runs with a folder and a seed each"
    return ""


def is_number(value: Any) -> bool:
    """A number that fits a float; infinite ones and nan are numbers."""
    return isinstance(value, float) or is_whole(value)


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 64


def _is_list_of_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number_or_none, value))


def _is_example(value: Any) -> bool:
    if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in ("name", "label")):
        return False
    labels = value.get("labels")
    is_sound = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    return is_sound and is_whole(value.get("image")) and is_number(value.get("probability"))


def _is_number_or_none(value: Any) -> bool:
    return value is None or is_number(value)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number_or_none, value.values()))


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _is_cell(value: Any) -> bool:
    # Names of other columns: those that no epsilon covers.
    is_list_of_names = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return _is_number_or_none(value) or is_list_of_names


def _is_privacy(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and _is_number_or_none(value.get("epsilon"))
        and isinstance(value.get("words", ""), str)
    )


def _is_run_of_sweep(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("run"), str) and is_whole(value.get("seed"))


_SUMMARY: dict[str, Callable[[Any], bool]] = {
    "setting": lambda value: isinstance(value, str),
    "rounds": is_whole,
    "seconds": is_number,
    "val": _are_numbers,
    "test": _are_numbers,
    "privacy": lambda value: value is None or _is_privacy(value),
}
