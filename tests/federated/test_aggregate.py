"""The streaming sum: weights, fixed order, and the tree."""

from __future__ import annotations

import random

import pytest
import torch

from fedflair.federated.aggregate import GROUP_SIZE, TreeSum, UpdateSum, cohort_groups
from fedflair.federated.client import ClientUpdate
from fedflair.federated.local_metrics import LocalMetrics
from fedflair.privacy.mechanisms import ClipResult, CohortStats


def update(values: list[float], weight: float) -> ClientUpdate:
    return ClientUpdate(torch.tensor(values), weight, 2, LocalMetrics(1.0, 2, 1))


def test_a_weighted_sum_by_hand() -> None:
    kept, cut = ClipResult(1.0, False, False), ClipResult(9.0, True, False)
    total = UpdateSum().add_client("a", update([1.0, 2.0], 2.0), kept).add_client("b", update([10.0, -1.0], 0.5), cut)
    assert total.delta is not None
    assert total.delta.tolist() == [7.0, 3.5]
    assert total.weight == 2.5
    assert total.cohort == CohortStats(2, 1, 0)
    assert total.metrics == LocalMetrics(2.0, 4, 2)


def test_groups_hold_every_client_once_largest_first() -> None:
    sizes = {"a": 1, "b": 7, "c": 7, "d": 3, "e": 2, "f": 9}
    groups = cohort_groups(list(sizes), sizes.__getitem__)
    assert groups == [["f"], ["b"], ["c"], ["d"], ["e"], ["a"]]
    assert cohort_groups([], sizes.__getitem__) == []


def test_groups_are_small_where_their_clients_are_large() -> None:
    # 300 clients of 1 image and 3 larger ones: 1/128 of the work (450 + 40.5 + 2.5 + 2.5 = 495.5) is 3.87 images and
    # client costs, which two small clients fill.
    sizes = {"large": 40, **{f"small {k}": 1 for k in range(300)}, "two": 2, "other two": 2}
    groups = cohort_groups(list(sizes), sizes.__getitem__)
    assert groups[:3] == [["large"], ["two"], ["other two"]]
    assert groups[3:] == [[f"small {k}", f"small {k + 1}"] for k in range(0, 300, 2)]
    equal = {f"client {k}": 1 for k in range(1030)}
    assert [len(group) for group in cohort_groups(list(equal), equal.__getitem__)] == [GROUP_SIZE] * 257 + [2]


@pytest.mark.parametrize("num_groups", [1, 2, 3, 5, 8, 13])
def test_the_total_does_not_depend_on_the_order_of_arrival(num_groups: int) -> None:
    generator = torch.Generator().manual_seed(num_groups)
    vectors = [torch.randn(50, generator=generator) * 10**k for k in range(num_groups)]
    totals = []
    for shuffle in range(5):
        order = list(range(num_groups))
        random.Random(shuffle).shuffle(order)
        tree = TreeSum(num_groups)
        for group in order:
            tree.add(group, UpdateSum(vectors[group].clone(), 1.0))
        assert tree.total.delta is not None
        assert tree.total.weight == num_groups
        totals.append(tree.total.delta)
    assert all(torch.equal(total, totals[0]) for total in totals)
    torch.testing.assert_close(totals[0], torch.stack(vectors).double().sum(0).float())


def test_a_slow_first_group_holds_up_few_partial_sums() -> None:
    tree = TreeSum(64)
    for group in range(1, 64):
        tree.add(group, UpdateSum(torch.ones(1), 1.0))
    assert len(tree._waiting) == 6
    tree.add(0, UpdateSum(torch.ones(1), 1.0))
    assert tree.total.delta is not None
    assert tree.total.delta.item() == 64
