"""The names of the synthetic twin: 1,639 fine-grained labels, their coarse labels, and how each one is to look.

Only the 20 head names and the 17 coarse names are FLAIR's; the rest are everyday nouns and adjectives, because FLAIR's
own list is under a non-commercial licence. As many names are made as FLAIR has; the last few are never used, as in
FLAIR, whose relation has 1,639 lines for 1,628 labels in use. Which coarse label a head name has is our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedflair.data.published import COARSE_COUNTS, NUM_FINE_LABELS, NUM_RELATION_LINES

Marks = Literal["plain", "striped", "spotted"]

COARSE_LABELS: tuple[str, ...] = tuple(sorted(COARSE_COUNTS))


@dataclass(frozen=True)
class Look:
    """How a fine-grained label varies its coarse label's motif.

    hue: turn of the colour circle, in turns, small enough to leave the coarse label recognisable.
    lightness: factor on brightness.  scale: factor on size.  style: which of the motif's shapes, 0 to 3.
    """

    hue: float
    lightness: float
    scale: float
    style: int
    marks: Marks


# Adjective -> (lightness, scale, marks); the noun decides hue and style.
_ADJECTIVES: dict[str, tuple[float, float, Marks]] = {
    "": (1.0, 1.0, "plain"),
    "pale": (1.2, 1.0, "plain"),
    "dark": (0.75, 1.0, "plain"),
    "striped": (1.0, 1.0, "striped"),
    "spotted": (1.0, 1.0, "spotted"),
    "small": (1.0, 0.75, "plain"),
    "large": (1.0, 1.3, "plain"),
    "old": (0.85, 0.9, "spotted"),
    "bright": (1.25, 1.1, "striped"),
    "shady": (0.7, 1.15, "striped"),
    "dappled": (1.1, 0.85, "spotted"),
    "slight": (1.1, 0.7, "plain"),
    "great": (0.9, 1.4, "plain"),
}

# Coarse label -> (fine labels in use, nouns; those of the published head first).
_NOUNS: dict[str, tuple[int, str]] = {
    "structure": (
        190,
        "wood_processed structure building rocks fence bridge tower door window roof wall stairs bench chair table"
        " arch pier barn cabin chimney",
    ),
    "equipment": (
        330,
        "plate container equipment bottle bag bicycle car camera clock computer cup hat helmet knife ladder"
        " machine phone radio shoe spoon tool train truck umbrella vehicle wheel wrench",
    ),
    "material": (80, "material textile paper metal glass brick leather plastic rope tile"),
    "outdoor": (90, "grass blue_sky cloudy land sky outdoor hill sand path night_sky sunset"),
    "plant": (
        200,
        "plant foliage tree vegetation flower fern moss ivy reed shrub cactus palm pine tulip vine willow wheat",
    ),
    "food": (
        280,
        "food fruit bread cake cheese salad soup pasta rice pie apple berry biscuit bean curry dumpling egg"
        " noodle olive onion pancake pepper tomato",
    ),
    "animal": (
        230,
        "animal dog cat bird horse cow sheep rabbit fox bear deer duck fish goat hen lion mouse owl seal",
    ),
    "liquid": (50, "liquid river lake sea rain puddle drink pond"),
    "art": (36, "art painting statue mural carving vase"),
    "interior_room": (30, "interior_room kitchen bedroom hallway"),
    "light": (24, "light lamp lantern spotlight"),
    "recreation": (30, "recreation ball kite parasol swing"),
    "celebration": (14, "celebration balloons confetti garland"),
    "fire": (8, "fire candle campfire torch"),
    "music": (18, "music piano guitar drum"),
    "games": (10, "games chess dice cards"),
    "religion": (8, "religion shrine chapel candlestick"),
}
_NUM_STYLES = 4
_MAX_HUE_TURN = 0.035


def _names(coarse: str, count: int) -> list[str]:
    nouns = _NOUNS[coarse][1].split()
    return [f"{adjective}_{noun}".lstrip("_") for adjective in _ADJECTIVES for noun in nouns][:count]


FINE_LABELS: dict[str, tuple[str, ...]] = {coarse: tuple(_names(coarse, _NOUNS[coarse][0])) for coarse in COARSE_LABELS}
"""Coarse label -> its fine-grained labels in use, most frequent first."""

_UNUSED = _names("equipment", _NOUNS["equipment"][0] + NUM_RELATION_LINES - NUM_FINE_LABELS)[_NOUNS["equipment"][0] :]

FINE_TO_COARSE: dict[str, str] = dict(
    sorted(
        [(fine, coarse) for coarse, names in FINE_LABELS.items() for fine in names]
        + [(fine, "equipment") for fine in _UNUSED]
    )
)
"""The relation as FLAIR ships one: 1,639 lines, fine -> coarse."""


def look(fine: str) -> Look:
    """The look of a fine-grained label; the same in every dataset, whatever the seed."""
    coarse = FINE_TO_COARSE[fine]
    nouns = _NOUNS[coarse][1].split()
    adjective, _, rest = fine.partition("_")
    noun, adjective = (fine, "") if fine in nouns else (rest, adjective)
    position = nouns.index(noun)
    lightness, scale, marks = _ADJECTIVES[adjective]
    turn = 2 * position / max(1, len(nouns) - 1) - 1
    return Look(_MAX_HUE_TURN * turn, lightness, scale, position % _NUM_STYLES, marks)
