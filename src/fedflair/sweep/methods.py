"""A paragraph for a paper about the runs of a privacy-utility curve, with the numbers that a reviewer asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from fedflair.config.train_config import TrainConfig
from fedflair.privacy.accounting import shown
from fedflair.sweep.budgets import NONE
from fedflair.sweep.curve import Curve, Point
from fedflair.sweep.results import words_of

_NORMS = {1.0: "L1", 2.0: "L2"}
_RELATIONS = {
    "zero_out": "replaced by zero, the number of users being public (zero-out adjacency)",
    "replace_one": "replaced by another's (replace-one adjacency)",
}


_SAMPLING = {
    "poisson": "drawn by Poisson sampling",
    "fixed": "of a fixed size, drawn without replacement",
    "b_min_separation": "drawn by b-min-separation sampling",
    "rotating": "that take turns, so that no sampling amplifies privacy",
}


def methods_text(curve: Curve) -> str:
    """What was trained, how it is private, and how it was scored; a paragraph for each curve.

    What no finished run has told yet stands in square brackets, as does what no sweep can know.
    """
    return "\n\n".join(_paragraph(curve, name) for name in curve.names)


def _paragraph(curve: Curve, name: str) -> str:
    points = curve.of(name)
    private = [point for point in points if point.facts is not None]
    told = [f"{name}:"] if name else []
    told.append(_training(points[0].trials[0].config))
    if private:
        try:
            told += [_mechanism(_facts(private[0])), *_promise(private), _noise(private)]
        except (KeyError, TypeError, ValueError):
            # A plugin's mechanism, which says of itself what its author thought of.
            told += [shown.words(_facts(point)) for point in private]
    else:
        told.append("[No private run is done yet: mechanism, noise and epsilon are not known.]")
    return " ".join([*told, _scores(curve, points), *_tuning(curve, private)])


def _training(config: TrainConfig) -> str:
    network = config.model.model_type if config.model.model == "multi_label_cnn" else config.model.model
    start = "pretrained on ImageNet" if config.model.pretrained else "from scratch"
    local, steps = config.local, f"{config.local.local_num_epochs} local epochs"
    if local.local_num_steps is not None:
        steps = f"{local.local_num_steps} local steps"
    users = "natural users" if config.data.dataset == "flair" else "artificial users, random groups of images,"
    return (
        f"We train {network} ({start}) with {config.algorithm.algorithm_name} on the {users} of {config.data.dataset} "
        f"for {config.algorithm.central_num_iterations:,} rounds: {steps} of SGD at learning rate "
        f"{local.local_learning_rate:g} in batches of at most {config.batch_size} images, and "
        f"{config.server.central_optimizer} at learning rate {config.server.learning_rate:g} on the server."
    )


def _mechanism(facts: shown.Facts) -> str:
    order = float(facts.get("order") or 2.0)
    bound = f"{facts['clipping_bound']:g}" + (" at first, then adapted" if facts.get("adaptive_clipping") else "")
    return (
        f"Each user's update is clipped to an {_NORMS.get(order, f'L{order:g}')} norm of at most {bound}, and noise of "
        f"the mechanism {facts['mechanism']} is added once to the sum over a round's cohort."
    )


def _promise(private: Sequence[Point]) -> list[str]:
    facts = _facts(private[0])
    kind = _SAMPLING.get(str(facts["sampling"]), str(facts["sampling"]))
    who = "an artificial user's" if facts.get("artificial_users") else "a user's"
    lines = [
        f"Privacy is central, with {who} whole contribution as its unit, "
        f"{_RELATIONS.get(str(facts['neighbouring']), str(facts['neighbouring']))}; all {facts['rounds']:,} rounds are "
        f"accounted together ({facts['accountant']} accountant)."
    ]
    own = _by_budget(private, lambda point: shown.show(shown.figures(_facts(point))[1]))
    whole = _list(point.told.split(" ")[0] for point in private)
    if facts["simulated"]:
        lines += [
            f"Epsilon {whole} at delta {facts['delta']:g} is that of a simulated deployment with a population of "
            f"{facts['population']:,} and cohorts of {facts['noise_cohort_size']:,} {kind} (sampling rate "
            f"{facts['sampling_rate']:.6g}).",
            f"The runs themselves have cohorts of {facts['cohort_size']:,} of {facts['users']:,} users (sampling rate "
            f"{facts['run_sampling_rate']:.6g}) and the noise scaled down to them; their own epsilon, the only one "
            f"that holds for the people whose photographs were used, is {own} at the same delta.",
        ]
    else:
        lines.append(
            f"Epsilon is {whole} at delta {facts['delta']:g}, with cohorts of {facts['cohort_size']:,} of a population "
            f"of {facts['population']:,} users, {kind} (sampling rate {facts['sampling_rate']:.6g})."
        )
    if facts["min_separation"] > 1:
        lines.append(f"No user is in two cohorts within {facts['min_separation']} rounds.")
    if facts.get("epsilon_per_round") is not None:
        lines.append("The noise is that of one release with the budget asked for, used in every round.")
    if any(_facts(point).get("noise_from_seed") for point in private):
        lines.append(shown.SEEDED)
    most = max(facts["population"], facts["users"])
    if facts["delta"] >= 1 / most:
        lines.append(f"Delta is not below 1/{most:,}: a weak promise, for comparison only.")
    if facts.get("artificial_users"):
        lines.append("A person's images are in many artificial users, so that a person's own epsilon is larger.")
    return lines


def _noise(private: Sequence[Point]) -> str:
    multipliers = _by_budget(private, lambda point: f"{_facts(point)['noise_multiplier']:.4g}")
    lengths = _by_budget(private, lambda point: "[not known]" if point.noise is None else f"{point.noise:.3g}")
    return (
        f"The noise multiplier (standard deviation over clipping bound) is {multipliers}; the noise on a round's mean "
        f"update is {lengths} times as long as the clipping bound."
    )


def _scores(curve: Curve, points: Sequence[Point]) -> str:
    seeds = sorted({trial.seed for point in points for trial in point.trials})
    missing = sum(len(point.trials) - point.num_done for point in points)
    told = "" if not missing else f" [{missing} runs are not done.]"
    deviation = ", with the sample standard deviation over seeds as band" if len(seeds) > 1 else ""
    named = ("seed " if len(seeds) == 1 else "seeds ") + _list(map(str, seeds))
    return (
        f"Scores are {words_of(curve.metric)} on test of the model of the round that is best on val, as a mean over "
        f"{named}{deviation}.{told}"
    )


def _tuning(curve: Curve, private: Sequence[Point]) -> list[str]:
    if not private:
        return []
    settings, num_runs = len(curve.names), sum(len(point.trials) for point in curve.points if point.asked != NONE)
    varied = (
        "no option but the budget was varied in it"
        if settings == 1
        else f"{settings} settings were trained for each budget, and choosing among them costs privacy too"
    )
    return [
        f"Each epsilon is that of one run. The sweep has {num_runs} private runs on the same users; {varied}. None "
        "of these epsilons covers the other runs, the choice of a round by its score on val, or earlier tuning. "
        "[State how the options were chosen, on whose data, and with how many runs.]"
    ]


def _by_budget(points: Sequence[Point], value: Callable[[Point], str]) -> str:
    """``1.2 and 0.4 (for epsilon 0.5 and 2)``; one value that all share stands alone."""
    values = [value(point) for point in points]
    if len(set(values)) == 1:
        return values[0]
    return f"{_list(values)} (for epsilon {_list(point.told.split(' ')[0] for point in points)})"


def _list(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _facts(point: Point) -> shown.Facts:
    assert point.facts is not None
    return point.facts
