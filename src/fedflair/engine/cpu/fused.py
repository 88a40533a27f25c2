"""The fast form of a network for one CPU core: fewer passes over memory, the same function of the same parameters.

The network is traced once. A normalisation, the addition after it and the ReLU after that become one layer, as do a
normalisation, ReLU and max-pooling. Convolutions write their weight's gradient straight into the flat vector. Whatever
is not recognised stays as it is.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from typing import Literal

import torch
from torch import fx, nn
from torch.nn import functional

from fedflair.engine.cpu import linear
from fedflair.engine.cpu.fast_layers import DirectConv2d, FusedNorm, can_be_direct, can_fuse
from fedflair.engine.cpu.kernels import library
from fedflair.engine.cpu.pooled_norm import PooledNorm, is_its_pool
from fedflair.engine.cpu.winograd_convolution import Scratch
from fedflair.models.normalization import FrozenBatchNorm2d

_RELUS = (functional.relu, torch.relu, "relu", "relu_")
_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own_layer = m.__module__.startswith("fedflair.") and not any(m.children())
        return own_layer or super().is_leaf_module(m, module_qualified_name)


def fused(module: nn.Module, rounded: Callable[[torch.Tensor], torch.Tensor | None]) -> nn.Module | None:
    """The fast form of ``module``, sharing its layers and parameters; None where there is nothing to gain.

    rounded: a parameter's bfloat16 twin, which makes its convolution one in bfloat16, or None.
    """
    if library() is None:
        return None
    graph = _traced(module)
    if graph is None:
        return None
    traced = fx.GraphModule(module, graph)
    modules = dict(traced.named_modules())
    num_replaced, scratch, shared = 0, Scratch(), _shared(module, graph)
    for node in list(graph.nodes):
        if node.op != "call_module":
            continue
        layer = modules[str(node.target)]
        if any(id(parameter) in shared for parameter in layer.parameters()):
            continue
        if can_be_direct(layer) and _uses(graph, str(node.target)) == 1:
            traced.set_submodule(str(node.target), DirectConv2d(layer, rounded(layer.weight), scratch))
            num_replaced += 1
        elif linear.can_be_direct(layer) and _uses(graph, str(node.target)) == 1:
            traced.set_submodule(str(node.target), linear.DirectLinear(layer, rounded(layer.weight)))
            num_replaced += 1
        elif can_fuse(layer) and _uses(graph, str(node.target)) == 1:
            _fuse_norm(traced, modules, node, layer)
            num_replaced += 1
    if num_replaced == 0:
        return None
    graph.lint()
    traced.recompile()
    return traced


def _shared(module: nn.Module, graph: fx.Graph) -> set[int]:
    """Parameters (by ``id``) of several layers, or that the network reads itself: their gradients are sums."""
    named = [(name, id(parameter)) for name, parameter in module.named_parameters(remove_duplicate=False)]
    read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    times = Counter(number for _, number in named)
    return {number for name, number in named if times[number] > 1 or name in read}


def _traced(module: nn.Module) -> fx.Graph | None:
    """The network's graph, if it has one, and the same one in training and evaluation."""
    was_training = module.training
    try:
        graphs = [_Tracer().trace(module.train(mode)) for mode in (False, True)]
    # Tracing runs the network's own code on stand-ins for tensors, so it can fail in any way that code can.
    except Exception:  # noqa: BLE001
        return None
    finally:
        module.train(was_training)
    return graphs[0] if str(graphs[0]) == str(graphs[1]) else None


def _fuse_norm(
    traced: fx.GraphModule, modules: dict[str, nn.Module], node: fx.Node, norm: nn.GroupNorm | FrozenBatchNorm2d
) -> None:
    """Lets ``node`` do what follows it as well, as far as nothing else looks at the values in between."""
    last, skip = node, None
    following = _only_user(node)
    if following is not None and _is_addition(following) and following.args[0] is not following.args[1]:
        other = following.args[1] if following.args[0] is node else following.args[0]
        after = _only_user(following)
        if isinstance(other, fx.Node) and after is not None and _relu(after, modules):
            skip, last = other, after
    elif following is not None and _relu(following, modules):
        last = following
    relu = "" if last is node else _relu(last, modules)
    # A convolution keeps its input, not its output.
    source = node.args[0]
    takes_over = isinstance(source, fx.Node) and _is_convolution(source, modules) and _only_user(source) is node
    pool = None if relu != "relu" or skip is not None else _only_user(last)
    if pool is not None and pool.op == "call_module" and is_its_pool(modules[str(pool.target)]):
        following, last = last, pool
        traced.set_submodule(str(node.target), PooledNorm(norm, takes_over=takes_over))
    else:
        layer = FusedNorm(norm, relu=relu != "", six=relu == "relu6", takes_over=takes_over)
        traced.set_submodule(str(node.target), layer)
    if last is node:
        return
    # The layer runs where the last of them ran: by then what is added has been computed.
    with traced.graph.inserting_before(last):
        arguments = (node.args[0],) if skip is None else (node.args[0], skip)
        together = traced.graph.call_module(str(node.target), arguments)
    last.replace_all_uses_with(together)
    for gone in dict.fromkeys((last, following, node)):
        if gone is not None:
            traced.graph.erase_node(gone)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _relu(node: fx.Node, modules: dict[str, nn.Module]) -> Literal["", "relu", "relu6"]:
    """Which of them the node is, if any."""
    if node.op == "call_module":
        layer = modules.get(str(node.target))
        return "relu6" if isinstance(layer, nn.ReLU6) else "relu" if isinstance(layer, nn.ReLU) else ""
    return "relu" if node.target in _RELUS else ""


def _is_convolution(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    # Not a subclass, which might keep what it likes.
    return node.op == "call_module" and type(modules.get(str(node.target))) is nn.Conv2d


def _is_addition(node: fx.Node) -> bool:
    return node.target in _ADDITIONS and len(node.args) == 2 and not node.kwargs


def _uses(graph: fx.Graph, target: str) -> int:
    return sum(node.op == "call_module" and node.target == target for node in graph.nodes)
