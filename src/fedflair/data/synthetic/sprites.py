"""The synthetic twin's things: one drawn motif per coarse label, varied by fine-grained label.

Each motif has a colour, an outline and an inner pattern that no other has, so that it is recognisable at 32 pixels,
from a part of it, and mirrored. Motifs are drawn once with Pillow and kept; a photograph is composed from them.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from fedflair.data.synthetic.vocabulary import Look

Colour = tuple[int, int, int, int]
Point = tuple[float, float]
CANVAS = 160


@dataclass(frozen=True)
class Pen:
    """A canvas of unit size, and the colours of one look.

    Coordinates are fractions of the canvas, (0, 0) at the top left.
    """

    draw: ImageDraw.ImageDraw
    look: Look
    rng: np.random.Generator

    def colour(self, hue: float, saturation: float, value: float, alpha: int = 255) -> Colour:
        """The colour turned and lightened as the look says; all arguments but alpha in [0, 1]."""
        jitter = float(self.rng.uniform(-0.04, 0.04))
        value = min(1.0, max(0.05, value * self.look.lightness + jitter))
        red, green, blue = colorsys.hsv_to_rgb((hue + self.look.hue) % 1.0, saturation, value)
        return round(red * 255), round(green * 255), round(blue * 255), alpha

    def box(self, left: float, top: float, right: float, bottom: float, fill: Colour, radius: float = 0.0) -> None:
        corners = (left * CANVAS, top * CANVAS, right * CANVAS, bottom * CANVAS)
        self.draw.rounded_rectangle(corners, radius * CANVAS, fill=fill)

    def disc(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        self.draw.ellipse(((x - rx) * CANVAS, (y - ry) * CANVAS, (x + rx) * CANVAS, (y + ry) * CANVAS), fill=fill)

    def shape(self, points: list[Point], fill: Colour) -> None:
        self.draw.polygon([(x * CANVAS, y * CANVAS) for x, y in points], fill=fill)

    def line(self, points: list[Point], fill: Colour, width: float) -> None:
        self.draw.line([(x * CANVAS, y * CANVAS) for x, y in points], fill=fill, width=round(width * CANVAS))

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))


def _structure(pen: Pen) -> None:
    """A grey-beige facade with a regular grid of blue-black windows."""
    style = pen.look.style
    wall = pen.colour(0.1, 0.1, 0.8)
    top = 0.25 if style in (1, 3) else 0.05
    pen.box(0.08, top, 0.92, 1.0, wall)
    if style == 1:
        pen.shape([(0.02, top), (0.5, 0.0), (0.98, top)], pen.colour(0.03, 0.55, 0.45))
    elif style == 3:
        for x in (0.08, 0.36, 0.64):
            pen.box(x, 0.1, x + 0.2, top, wall)
    window = pen.colour(0.6, 0.5, 0.22)
    for y in np.arange(top + 0.09, 0.92, 0.2):
        for x in np.arange(0.16, 0.84, 0.19):
            pen.box(x, y, x + 0.1, y + 0.12, window)


def _equipment(pen: Pen) -> None:
    """A dark steel-blue casing with bright ringed dials."""
    body = pen.colour(0.61, 0.35, 0.24)
    style = pen.look.style
    if style == 2:
        pen.disc(0.5, 0.5, 0.48, 0.48, body)
    else:
        pen.box(0.04, 0.14 if style else 0.26, 0.96, 0.9 if style else 0.8, body, 0.12)
    if style == 3:
        pen.box(0.35, 0.02, 0.65, 0.2, body, 0.04)
    pale, dark = pen.colour(0.58, 0.06, 0.9), pen.colour(0.6, 0.3, 0.1)
    centres = ((0.5, 0.54),) if style in (2, 3) else ((0.28, 0.54), (0.72, 0.54))
    for x, y in centres:
        radius = 0.28 if len(centres) == 1 else 0.18
        for part, fill in ((1.0, pale), (0.72, dark), (0.4, pale)):
            pen.disc(x, y, radius * part, radius * part, fill)


def _material(pen: Pen) -> None:
    """A brown slab of wood grain: long wavy stripes from edge to edge."""
    pen.box(0.0, 0.08, 1.0, 0.92, pen.colour(0.075, 0.62, 0.62))
    grain = pen.colour(0.055, 0.75, 0.36)
    for y in np.arange(0.16, 0.9, 0.11 + 0.015 * pen.look.style):
        phase, height = pen.uniform(0, 6.3), pen.uniform(0.01, 0.035)
        pen.line([(x, y + height * math.sin(7 * x + phase)) for x in np.linspace(0, 1, 14)], grain, 0.03)


def _plant(pen: Pen) -> None:
    """A saturated green spray of pointed leaves."""
    count = (9, 13, 7, 11)[pen.look.style]
    for k in range(count):
        angle = 2 * math.pi * k / count + pen.uniform(-0.2, 0.2)
        length, width = pen.uniform(0.38, 0.5), 0.26 if count < 10 else 0.18
        tip = (0.5 + length * math.cos(angle), 0.5 + length * math.sin(angle))
        left = (0.5 + 0.25 * math.cos(angle + width * 2), 0.5 + 0.25 * math.sin(angle + width * 2))
        right = (0.5 + 0.25 * math.cos(angle - width * 2), 0.5 + 0.25 * math.sin(angle - width * 2))
        pen.shape([(0.5, 0.5), left, tip, right], pen.colour(0.31, 0.8, 0.35 + 0.3 * (k % 2)))
        pen.line([(0.5, 0.5), tip], pen.colour(0.28, 0.5, 0.75), 0.012)


def _food(pen: Pen) -> None:
    """A white plate with a rim, heaped with red and yellow rounds."""
    pen.disc(0.5, 0.5, 0.49, 0.42, pen.colour(0.1, 0.02, 0.8))
    pen.disc(0.5, 0.49, 0.46, 0.38, pen.colour(0.12, 0.03, 0.97))
    for k in range(6 + 2 * pen.look.style):
        angle, reach = pen.uniform(0, 6.3), pen.uniform(0.0, 0.26)
        x, y = 0.5 + reach * math.cos(angle), 0.48 + reach * 0.75 * math.sin(angle)
        pen.disc(x, y, 0.1, 0.085, pen.colour(0.005 if k % 2 else 0.12, 0.9, 0.85))


def _animal(pen: Pen) -> None:
    """A ginger four-legged body with two ears, two eyes and dark patches."""
    fur, dark = pen.colour(0.085, 0.85, 0.98), pen.colour(0.06, 0.8, 0.4)
    for x in (0.3, 0.42, 0.68, 0.8):
        pen.box(x, 0.6, x + 0.09, 0.97, fur, 0.04)
    pen.disc(0.58, 0.58, 0.38, 0.24, fur)
    pen.disc(0.26, 0.36, 0.23, 0.21, fur)
    ear = 0.2 if pen.look.style in (0, 2) else 0.32
    for x in (0.12, 0.4):
        pen.shape([(x - 0.08, 0.28), (x + 0.08, 0.28), (x, 0.3 - ear)], dark)
    for x in (0.18, 0.33):
        pen.disc(x, 0.34, 0.055, 0.06, (250, 250, 245, 255))
        pen.disc(x, 0.34, 0.03, 0.035, (15, 10, 10, 255))
    pen.disc(0.255, 0.45, 0.05, 0.035, dark)
    for _ in range(4 + pen.look.style):
        pen.disc(pen.uniform(0.38, 0.85), pen.uniform(0.46, 0.68), 0.055, 0.05, dark)


def _liquid(pen: Pen) -> None:
    """A turquoise pool with white ripples."""
    pen.disc(0.5, 0.5, 0.5, 0.4 if pen.look.style % 2 else 0.46, pen.colour(0.5, 0.85, 0.72))
    for y in np.arange(0.22, 0.82, 0.13):
        half = 0.42 * math.sqrt(max(0.0, 1 - ((y - 0.5) / 0.42) ** 2))
        xs = np.linspace(0.5 - half, 0.5 + half, 18)
        wave = [(x, y + 0.025 * math.sin(24 * x + 9 * y)) for x in xs]
        pen.line(wave, pen.colour(0.48, 0.15, 1.0), 0.028)


def _art(pen: Pen) -> None:
    """A gilt frame around blocks of pure red, blue, yellow and white parted by black bars."""
    pen.box(0.03, 0.06, 0.97, 0.94, pen.colour(0.12, 0.75, 0.78))
    pen.box(0.12, 0.15, 0.88, 0.85, (15, 15, 15, 255))
    fills = [
        pen.colour(0.0, 0.9, 0.85),
        pen.colour(0.63, 0.9, 0.75),
        pen.colour(0.15, 0.9, 0.95),
        pen.colour(0.1, 0.02, 0.97),
    ]
    cut_x, cut_y = pen.uniform(0.35, 0.65), pen.uniform(0.35, 0.65)
    turn = pen.look.style
    for k, (left, right, top, bottom) in enumerate(
        ((0.14, cut_x, 0.17, cut_y), (cut_x, 0.86, 0.17, cut_y), (0.14, cut_x, cut_y, 0.83), (cut_x, 0.86, cut_y, 0.83))
    ):
        pen.box(left + 0.015, top + 0.015, right - 0.015, bottom - 0.015, fills[(k + turn) % 4])


def _light(pen: Pen) -> None:
    """A glow: white-hot centre, and a yellow halo with rays that fades into the picture."""
    for radius in np.linspace(0.5, 0.3, 6):
        pen.disc(0.5, 0.5, radius, radius, pen.colour(0.16, 0.85, 1.0, round(255 * (0.54 - radius) / 0.24)))
    for k in range(8 + 2 * pen.look.style):
        angle = 2 * math.pi * k / (8 + 2 * pen.look.style)
        far = (0.5 + 0.5 * math.cos(angle), 0.5 + 0.5 * math.sin(angle))
        pen.line([(0.5, 0.5), far], pen.colour(0.16, 0.4, 1.0), 0.04)
    pen.disc(0.5, 0.5, 0.14, 0.14, (255, 255, 245, 255))


def _recreation(pen: Pen) -> None:
    """A beach ball or parasol in magenta and white sectors."""
    count = (8, 12, 10, 8)[pen.look.style]
    for k in range(count):
        start = 360 * k / count
        fill = pen.colour(0.89, 0.85, 0.88) if k % 2 else pen.colour(0.9, 0.03, 1.0)
        pen.draw.pieslice(
            (0.02 * CANVAS, 0.02 * CANVAS, 0.98 * CANVAS, 0.98 * CANVAS), start, start + 360 / count, fill
        )
    pen.disc(0.5, 0.5, 0.08, 0.08, pen.colour(0.15, 0.9, 0.95))


def _celebration(pen: Pen) -> None:
    """Three lime-green balloons in a burst of pink and cyan confetti."""
    for k in range(40):
        x, y, size = pen.uniform(0.04, 0.96), pen.uniform(0.04, 0.96), pen.uniform(0.03, 0.05)
        pen.box(x - size, y - size, x + size, y + size, pen.colour((0.93, 0.5)[k % 2], 0.8, 1.0))
    for x, y in ((0.24, 0.36), (0.76, 0.36), (0.5, 0.26 + 0.05 * pen.look.style)):
        pen.line([(x, y), (0.5, 0.98)], (90, 90, 90, 255), 0.015)
        pen.disc(x, y, 0.21, 0.25, pen.colour(0.215, 0.95, 0.97))
        pen.disc(x - 0.06, y - 0.09, 0.03, 0.04, (255, 255, 255, 255))


def _fire(pen: Pen) -> None:
    """Flames: red tongues, orange within, yellow at the heart."""
    for tongue in range(3 + pen.look.style % 2):
        x = 0.2 + 0.6 * tongue / (2 + pen.look.style % 2)
        height = pen.uniform(0.7, 0.98)
        for part, hue, value in ((1.0, 0.01, 0.95), (0.7, 0.07, 1.0), (0.4, 0.145, 1.0)):
            wide, high = 0.21 * part, height * part
            lean = pen.uniform(-0.05, 0.05)
            pen.shape(
                [(x - wide, 0.85), (x - wide * 0.5, 1 - high * 0.6), (x + lean, 1 - high), (x + wide, 0.85)],
                pen.colour(hue, 1.0, value),
            )
            pen.disc(x, 0.85, wide, 0.13 * part, pen.colour(hue, 1.0, value))


def _music(pen: Pen) -> None:
    """A keyboard: white keys with black ones between, and an indigo cover."""
    pen.box(0.0, 0.12, 1.0, 0.88, (20, 18, 22, 255))
    pen.box(0.0, 0.0, 1.0, 0.26, pen.colour(0.69, 0.95, 0.7))
    count = (7, 9, 8, 6)[pen.look.style]
    for k in range(count):
        pen.box(k / count + 0.012, 0.28, (k + 1) / count - 0.012, 0.86, (247, 245, 238, 255))
    for k in range(1, count):
        if k % 4:
            pen.box(k / count - 0.035, 0.28, k / count + 0.035, 0.62, (12, 12, 14, 255))


def _games(pen: Pen) -> None:
    """A chequered board, red and black, with round ivory pieces."""
    count = (6, 8, 5, 6)[pen.look.style]
    red, ivory = pen.colour(0.985, 0.95, 0.85), pen.colour(0.13, 0.12, 0.96)
    pen.box(0.02, 0.02, 0.98, 0.98, (40, 20, 10, 255))
    side = 0.92 / count
    for row in range(count):
        for column in range(count):
            x, y = 0.04 + column * side, 0.04 + row * side
            pen.box(x, y, x + side, y + side, red if (row + column) % 2 else (16, 12, 12, 255))
            if pen.rng.random() < 0.14:
                pen.disc(x + side / 2, y + side / 2, side * 0.36, side * 0.36, ivory)


def _religion(pen: Pen) -> None:
    """A pointed violet window with a golden cross."""
    violet = pen.colour(0.78, 0.85, 0.6)
    pen.shape([(0.12, 1.0), (0.12, 0.4), (0.3, 0.12), (0.5, 0.0), (0.7, 0.12), (0.88, 0.4), (0.88, 1.0)], violet)
    for k in range(9):
        x, y = 0.24 + 0.26 * (k % 3), 0.36 + 0.25 * (k // 3)
        pen.box(x - 0.09, y - 0.09, x + 0.09, y + 0.09, pen.colour(0.76 + 0.02 * (k % 3), 0.7, 0.9))
    gold = pen.colour(0.135, 0.85, 1.0)
    arm = 0.36 + 0.04 * pen.look.style
    pen.box(0.435, 0.14, 0.565, 0.95, gold)
    pen.box(0.2, arm, 0.8, arm + 0.13, gold)


def _outdoor(pen: Pen) -> None:
    """Out of doors: a snow-capped blue hill, a cloud, or a meadow hummock, by style."""
    style = pen.look.style
    if style in (1, 2):
        for x, y, radius in ((0.25, 0.6, 0.2), (0.5, 0.48, 0.28), (0.76, 0.6, 0.2), (0.5, 0.66, 0.2)):
            pen.disc(x, y, radius, radius * 0.8, pen.colour(0.58, 0.06, 0.97))
        pen.box(0.2, 0.6, 0.8, 0.8, pen.colour(0.58, 0.08, 0.9), 0.08)
        return
    pen.shape([(0.0, 0.92), (0.42, 0.1), (0.6, 0.36), (0.7, 0.24), (1.0, 0.92)], pen.colour(0.6, 0.45, 0.52))
    pen.shape([(0.42, 0.1), (0.53, 0.26), (0.45, 0.34), (0.38, 0.28), (0.32, 0.31)], (245, 248, 252, 255))


def _interior_room(pen: Pen) -> None:
    """Furniture of a room: a salmon armchair or a curtained window, by style."""
    salmon, deep = pen.colour(0.985, 0.45, 0.85), pen.colour(0.98, 0.6, 0.55)
    if pen.look.style % 2:
        pen.box(0.1, 0.05, 0.9, 0.95, pen.colour(0.1, 0.05, 0.98))
        pen.box(0.16, 0.11, 0.84, 0.89, pen.colour(0.54, 0.2, 0.97))
        for k in range(4):
            pen.box(0.1 + 0.06 * k, 0.05, 0.145 + 0.06 * k, 0.95, salmon if k % 2 else deep)
            pen.box(0.855 - 0.06 * k, 0.05, 0.9 - 0.06 * k, 0.95, salmon if k % 2 else deep)
        return
    pen.box(0.15, 0.1, 0.85, 0.7, salmon, 0.12)
    pen.box(0.02, 0.4, 0.24, 0.86, deep, 0.08)
    pen.box(0.76, 0.4, 0.98, 0.86, deep, 0.08)
    pen.box(0.14, 0.6, 0.86, 0.84, deep, 0.06)


MOTIFS: dict[str, Callable[[Pen], None]] = {
    "structure": _structure,
    "equipment": _equipment,
    "material": _material,
    "outdoor": _outdoor,
    "plant": _plant,
    "food": _food,
    "animal": _animal,
    "liquid": _liquid,
    "art": _art,
    "interior_room": _interior_room,
    "light": _light,
    "recreation": _recreation,
    "celebration": _celebration,
    "fire": _fire,
    "music": _music,
    "games": _games,
    "religion": _religion,
}
"""Coarse label -> its motif."""


def sprite(coarse: str, look: Look, rng: np.random.Generator) -> Image.Image:
    """One drawing of a motif: RGBA [160, 160], transparent where the thing is not."""
    canvas = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
    MOTIFS[coarse](Pen(ImageDraw.Draw(canvas), look, rng))
    if look.marks != "plain":
        _mark(canvas, look, rng)
    return _shade(canvas)


def _mark(canvas: Image.Image, look: Look, rng: np.random.Generator) -> None:
    """Darkens stripes or spots within the outline."""
    pattern = Image.new("RGB", canvas.size, (255, 255, 255))
    draw = ImageDraw.Draw(pattern)
    if look.marks == "striped":
        for x in range(-CANVAS, CANVAS, 24):
            draw.line((x, 0, x + CANVAS, CANVAS), fill=_MARK, width=8)
    else:
        for x, y in rng.uniform(0, CANVAS, (26, 2)):
            draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=_MARK)
    marked = ImageChops.multiply(canvas.convert("RGB"), pattern)
    marked.putalpha(canvas.getchannel("A"))
    canvas.paste(marked)


def _shade(canvas: Image.Image) -> Image.Image:
    """Lights the thing from the upper left and gives it a soft shadow, so that it sits in the picture."""
    alpha = canvas.getchannel("A")
    shaded = ImageChops.multiply(canvas.convert("RGB"), _LIGHT)
    shadow = Image.new("L", canvas.size, 0)
    shadow.paste(alpha.point(_SHADOW), (6, 8))
    result = Image.new("RGBA", canvas.size, (0, 0, 0, 0))
    result.putalpha(shadow.filter(ImageFilter.BoxBlur(5)))
    shaded.putalpha(alpha)
    result.alpha_composite(shaded)
    return result


def _light_map() -> Image.Image:
    """Brightness from 255 at the upper left to 185 at the lower right: RGB [160, 160]."""
    y, x = np.mgrid[0:CANVAS, 0:CANVAS] / CANVAS
    light = (255 - 70 * np.clip((0.35 * x + 0.65 * y) ** 1.5, 0, 1)).astype(np.uint8)
    return Image.fromarray(np.repeat(light[:, :, None], 3, axis=2))


_LIGHT = _light_map()
_MARK = (150, 150, 150)
_SHADOW = [round(0.45 * value) for value in range(256)]
