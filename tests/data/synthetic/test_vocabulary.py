"""1,639 names under 17 coarse ones, each of which looks different from its neighbours."""

from __future__ import annotations

from fedflair.data.published import FINE_HEAD_COUNTS
from fedflair.data.synthetic.vocabulary import COARSE_LABELS, FINE_LABELS, FINE_TO_COARSE, look


def test_the_relation_has_flairs_size() -> None:
    assert len(FINE_TO_COARSE) == 1_639
    used = [name for names in FINE_LABELS.values() for name in names]
    assert len(used) == len(set(used)) == 1_628
    assert set(used) < set(FINE_TO_COARSE)
    assert set(FINE_TO_COARSE.values()) == set(COARSE_LABELS) == set(FINE_LABELS)
    assert len(COARSE_LABELS) == 17


def test_the_relation_agrees_with_the_lists() -> None:
    assert all(FINE_TO_COARSE[name] == coarse for coarse, names in FINE_LABELS.items() for name in names)


def test_the_published_head_is_in_use_and_leads_its_coarse_label() -> None:
    for coarse, names in FINE_LABELS.items():
        heads = [name for name in FINE_HEAD_COUNTS if FINE_TO_COARSE[name] == coarse]
        assert set(names[: len(heads)]) == set(heads)


def test_fine_labels_of_one_coarse_label_look_different() -> None:
    for names in FINE_LABELS.values():
        assert len({look(name) for name in names}) == len(names)
