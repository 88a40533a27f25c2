"""The server's side of a round: its state, what it broadcasts, and its optimizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from fedflair.config.groups.server import ServerOptions
from fedflair.engine.vector import blank
from fedflair.errors import ConfigError
from fedflair.privacy.mechanisms import MechanismState

Tensors = Mapping[str, torch.Tensor]
# (parameters, gradient, state, learning_rate) -> (parameters, state)
Apply = Callable[[torch.Tensor, torch.Tensor, Tensors, float], tuple[torch.Tensor, Tensors]]
# (gradient, state, number of the step, from 1) -> (what Adam divides by, the averages that it is made of)
Denominator = Callable[[torch.Tensor, Tensors, int], tuple[torch.Tensor, Tensors]]

# Elements that the server's optimizer works on at once.
PIECE = 2**16

# What an optimizer that knows of the noise finds in its state.
NOISE_VARIANCE = "noise_variance"


@dataclass(frozen=True)
class ServerState:
    """Everything that a round changes; a checkpoint of it is a checkpoint of the run.

    round: number of rounds done. parameters: float32 [P].
    optimizer_state, algorithm_state, mechanism_state: tensors by name.
    """

    round: int
    parameters: torch.Tensor
    optimizer_state: Tensors
    algorithm_state: Tensors
    mechanism_state: MechanismState


@dataclass(frozen=True)
class Broadcast:
    """What every worker gets of a round, once: round, parameters float32 [P], algorithm_state, clipping bound.

    group_bounds: of each group of parameters, where they are clipped apart.
    """

    round: int
    parameters: torch.Tensor
    algorithm_state: Tensors
    clipping_bound: float
    group_bounds: tuple[float, ...] = ()


@dataclass(frozen=True)
class ServerOptimizer:
    """init: parameters -> state.

    apply: (parameters, gradient, state, learning_rate) -> (parameters, state). Changes nothing in place, and works on
        each element by itself: tensors without dimensions aside, the state's are as long as the parameters.
    knows_noise: before each step, ``NOISE_VARIANCE`` of the state is set to that of the noise on the gradient.
    """

    init: Callable[[torch.Tensor], Tensors]
    apply: Apply
    knows_noise: bool = False


def optimizer_step(
    optimizer: ServerOptimizer,
    parameters: torch.Tensor,
    mean_delta: torch.Tensor,
    state: Tensors,
    learning_rate: float,
    noise_variance: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Tensors]:
    """The optimizer's (parameters, state) after one step with minus ``mean_delta`` as the gradient.

    noise_variance: of the privacy noise on each entry of ``mean_delta``, [] or [P]; None is no noise.
    On a CPU taken piece by piece, so that the half-dozen vectors in between never leave its cache.
    """
    if optimizer.knows_noise:
        state = {**state, NOISE_VARIANCE: torch.zeros(()) if noise_variance is None else noise_variance}
    total = parameters.numel()
    size = PIECE if parameters.device.type == "cpu" else max(total, 1)
    moved, after = blank(parameters), dict(state)
    for start in range(0, total, size):
        piece = slice(start, start + size)
        here = {name: values[piece] if values.ndim else values for name, values in state.items()}
        try:
            moved[piece], changed = optimizer.apply(parameters[piece], mean_delta[piece].neg(), here, learning_rate)
        except RuntimeError as error:
            if "without overflow" not in str(error):
                raise
            raise ConfigError(
                f"learning_rate: {learning_rate:g} makes steps that no 32-bit number holds; lower it and start anew"
            ) from error
        for name, values in changed.items():
            if values.ndim == 0:
                after[name] = values
                continue
            if start == 0:
                after[name] = blank(parameters)
            after[name][piece] = values
    return moved, after


def sgd(options: ServerOptions) -> ServerOptimizer:
    """Plain gradient descent: with learning rate 1 the server takes the mean update as it is (FedAvg)."""

    def apply(
        parameters: torch.Tensor, gradient: torch.Tensor, state: Tensors, learning_rate: float
    ) -> tuple[torch.Tensor, Tensors]:
        decayed = parameters * (1 - learning_rate * options.central_weight_decay)
        return decayed.add_(gradient, alpha=-learning_rate), state

    return ServerOptimizer(lambda parameters: {}, apply)


def avgm(options: ServerOptions) -> ServerOptimizer:
    """Gradient descent with heavy-ball momentum ``adam_beta1`` on the mean updates (Hsu et al., 2019)."""

    def apply(
        parameters: torch.Tensor, gradient: torch.Tensor, state: Tensors, learning_rate: float
    ) -> tuple[torch.Tensor, Tensors]:
        velocity = (state["velocity"] * options.adam_beta1).add_(gradient)
        decayed = parameters * (1 - learning_rate * options.central_weight_decay)
        return decayed.add_(velocity, alpha=-learning_rate), {"velocity": velocity}

    return ServerOptimizer(lambda parameters: {"velocity": torch.zeros_like(parameters)}, apply)


def adam(options: ServerOptions) -> ServerOptimizer:
    """AdamW with bias correction (Loshchilov and Hutter, 2019), as ``torch.optim.AdamW`` computes it."""
    beta2, eps = options.adam_beta2, options.adaptivity_degree

    def denominator(gradient: torch.Tensor, state: Tensors, step: int) -> tuple[torch.Tensor, Tensors]:
        square = (state["square"] * beta2).addcmul_(gradient, gradient, value=1 - beta2)
        return (square.sqrt() / (1 - beta2**step) ** 0.5).add_(eps), {"square": square}

    return ServerOptimizer(_moments, _mean_over(denominator, options))


def adam_bc(options: ServerOptions) -> ServerOptimizer:
    """As ``adam``, with the known variance of the privacy noise taken out of the second moment.

    DP-AdamBC (Tang, Shpilevskiy and Lecuyer 2024, arXiv:2312.14334). The noise adds its variance to the mean of squared
    gradients, the same for every parameter: where it is larger than the gradients, Adam takes steps of one size in all
    directions. The denominator is sqrt(max(v - noise, eps^2)), with eps = ``adaptivity_degree``; both averages forget
    and are corrected for their start alike, so that noise which changes from round to round is taken out as it came in.
    """
    beta2, eps = options.adam_beta2, options.adaptivity_degree

    def init(parameters: torch.Tensor) -> Tensors:
        none = torch.zeros((), dtype=torch.float64)
        return {**_moments(parameters), "noise": none, NOISE_VARIANCE: none.clone()}

    def denominator(gradient: torch.Tensor, state: Tensors, step: int) -> tuple[torch.Tensor, Tensors]:
        square = (state["square"] * beta2).addcmul_(gradient, gradient, value=1 - beta2)
        noise = state["noise"] * beta2 + state[NOISE_VARIANCE] * (1 - beta2)
        root = ((square - noise) / (1 - beta2**step)).clamp_(min=eps**2).sqrt_()
        return root, {"square": square, "noise": noise, NOISE_VARIANCE: state[NOISE_VARIANCE]}

    return ServerOptimizer(init, _mean_over(denominator, options), knows_noise=True)


def yogi(options: ServerOptions) -> ServerOptimizer:
    """As ``adam``, but the second moment moves by steps of the squared gradient's size (Zaheer et al., 2018)."""
    beta2, eps = options.adam_beta2, options.adaptivity_degree

    def denominator(gradient: torch.Tensor, state: Tensors, step: int) -> tuple[torch.Tensor, Tensors]:
        squared = gradient.square()
        direction = torch.sign(squared - state["square"])
        square = state["square"] + direction.mul_(squared).mul_(1 - beta2)
        return (square.sqrt() / (1 - beta2**step) ** 0.5).add_(eps), {"square": square}

    return ServerOptimizer(_moments, _mean_over(denominator, options))


def _moments(parameters: torch.Tensor) -> Tensors:
    """Nothing averaged yet."""
    zeros = torch.zeros_like(parameters)
    return {"step": torch.zeros((), dtype=torch.int64), "mean": zeros, "square": zeros.clone()}


def _mean_over(denominator: Denominator, options: ServerOptions) -> Apply:
    """Adam's step: weight decay, then the gradients' running mean, corrected for its start, over ``denominator``."""
    beta1 = options.adam_beta1

    def apply(
        parameters: torch.Tensor, gradient: torch.Tensor, state: Tensors, learning_rate: float
    ) -> tuple[torch.Tensor, Tensors]:
        step = int(state["step"]) + 1
        mean = torch.lerp(state["mean"], gradient, 1 - beta1)
        below, averages = denominator(gradient, state, step)
        decayed = parameters * (1 - learning_rate * options.central_weight_decay)
        moved = decayed.addcdiv_(mean, below, value=-learning_rate / (1 - beta1**step))
        return moved, {"step": torch.tensor(step), "mean": mean, **averages}

    return apply


def adagrad(options: ServerOptions) -> ServerOptimizer:
    """Steps divided by the root of the sum of squared gradients (Duchi et al., 2011), without momentum."""

    def apply(
        parameters: torch.Tensor, gradient: torch.Tensor, state: Tensors, learning_rate: float
    ) -> tuple[torch.Tensor, Tensors]:
        square = torch.addcmul(state["square"], gradient, gradient)
        decayed = parameters * (1 - learning_rate * options.central_weight_decay)
        moved = decayed.addcdiv_(gradient, square.sqrt().add_(options.adaptivity_degree), value=-learning_rate)
        return moved, {"square": square}

    return ServerOptimizer(lambda parameters: {"square": torch.zeros_like(parameters)}, apply)


SERVER_OPTIMIZERS: dict[str, Callable[[ServerOptions], ServerOptimizer]] = {
    "sgd": sgd,
    "avgm": avgm,
    "adam": adam,
    "adam_bc": adam_bc,
    "yogi": yogi,
    "adagrad": adagrad,
}
