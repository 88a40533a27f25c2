"""Rendering of the synthetic twin: a user's camera and taste, and a photograph in which each label can be seen.

A photograph is a scene (sky and land, a room, or the user's own backdrop), in it several drawings of each of its labels
(every fine-grained label at least once), and over it the user's look: tint, exposure, contrast, vignette, blur and
grain.
Everything is drawn from named streams, so a photograph depends on the seed, its user and its place among the user's
photographs, and on nothing else.
"""

from __future__ import annotations

import colorsys
import io
import math
from bisect import bisect
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageFilter

from fedflair.data.published import COARSE_COUNTS, NUM_IMAGES
from fedflair.data.synthetic.sprites import sprite
from fedflair.data.synthetic.vocabulary import FINE_TO_COARSE, look
from fedflair.sampling import stream

SIZE = 256
_SPRITE_SIZES = (40, 52, 66, 82, 100, 124, 150)
_SUBJECTS = frozenset(label for label, images in COARSE_COUNTS.items() if images < 0.1 * NUM_IMAGES)
_SIZE_LIMITS = tuple((small + large) / 2 for small, large in pairwise(_SPRITE_SIZES))
_SPRITE_VARIANTS = 3
# Scenes are wider than a photograph, which takes a part of them.
WIDTH = 320
_NUM_SCENES = 16
_NUM_BACKDROPS = 4
_NUM_HUES = 16
_NUM_GRAINS = 4


@dataclass(frozen=True)
class Camera:
    """A user's look.

    table: the 768 entries that exposure, contrast and tint make of the RGB values.
    vignette: strength of the dark corners, 0 to 2.  blur: radius in pixels.  grain: strength, 0 to 3.
    backdrop: hue of surroundings that belong to no label.  crowding: share of the picture that things take.
    quality: of the JPEGs.
    """

    table: tuple[int, ...]
    vignette: int
    blur: float
    grain: int
    backdrop: float
    crowding: float
    quality: int


@lru_cache(maxsize=4096)
def camera(seed: int, user_id: str) -> Camera:
    """The look of one user's photographs."""
    rng = stream(seed, "synthetic camera", client=user_id)
    gamma, contrast, black = rng.uniform(0.7, 1.4), rng.uniform(0.75, 1.1), rng.uniform(0, 30)
    tint = 1 + rng.uniform(-0.1, 0.1, 3)
    levels = np.linspace(0, 1, 256)[None, :] ** gamma
    table = np.clip((0.5 + (levels - 0.5) * contrast) * 255 * tint[:, None] + black, 0, 255)
    return Camera(
        table=tuple(np.rint(table).astype(int).ravel().tolist()),
        vignette=int(rng.integers(0, 3)),
        blur=float(rng.choice([0.0, 0.0, 0.0, 0.7, 1.3])),
        grain=int(rng.integers(0, _NUM_GRAINS)),
        backdrop=float(rng.random()),
        crowding=float(rng.uniform(0.75, 1.15)),
        quality=int(rng.integers(66, 86)),
    )


def render(seed: int, user_id: str, position: int, fine_labels: tuple[str, ...]) -> bytes:
    """The user's photograph number ``position``, which shows ``fine_labels``: a 256x256 RGB JPEG."""
    look_of_user = camera(seed, user_id)
    rng = stream(seed, "synthetic photograph", position, user_id)
    return _encode(_photograph(seed, fine_labels, look_of_user, rng), look_of_user)


def _photograph(seed: int, fine_labels: tuple[str, ...], user: Camera, rng: np.random.Generator) -> Image.Image:
    coarse = {FINE_TO_COARSE[fine] for fine in fine_labels}
    kind = "room" if "interior_room" in coarse else "land" if "outdoor" in coarse else "backdrop"
    if {"interior_room", "outdoor"} <= coarse:
        kind = "view"
    if kind == "backdrop":
        scene = _scene(seed, kind, int(rng.integers(_NUM_BACKDROPS)), round(user.backdrop * _NUM_HUES))
    else:
        scene = _scene(seed, kind, int(rng.integers(_NUM_SCENES)))
    left = int(rng.integers(WIDTH - SIZE + 1))
    picture = scene.crop((left, 0, left + SIZE, SIZE))
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    _arrange(seed, picture, fine_labels, user, rng)
    picture = picture.point(user.table)
    if user.vignette:
        picture = ImageChops.multiply(picture, _vignette(user.vignette))
    if user.blur:
        picture = picture.filter(ImageFilter.BoxBlur(user.blur))
    if user.grain:
        left, top = (int(v) for v in rng.integers(0, SIZE, 2))
        grain = _grain(seed, user.grain).crop((left, top, left + SIZE, top + SIZE))
        picture = ImageChops.add(picture, grain, offset=-128)
    return picture


def _arrange(
    seed: int, picture: Image.Image, fine_labels: tuple[str, ...], user: Camera, rng: np.random.Generator
) -> None:
    """Spreads drawings of the labels over the picture, on a jittered grid, the nearer ones in front and larger."""
    by_coarse: dict[str, list[str]] = {}
    for fine in fine_labels:
        by_coarse.setdefault(FINE_TO_COARSE[fine], []).append(fine)
    # Every fine label once, then the coarse labels in turn, so that most crops of the picture show each of them.
    # What is rare is what a photograph is about: it gets two turns, and stands in front, larger.
    most = max(9, min(16, 4 * len(by_coarse)), len(fine_labels))
    turns = [
        names[k % len(names)]
        for k in range(most)
        for coarse, names in by_coarse.items()
        for _ in range(2 if coarse in _SUBJECTS else 1)
    ]
    shown = [*fine_labels, *turns][:most]
    side = math.ceil(math.sqrt(len(shown)))
    cells = np.sort(rng.permutation(side * side)[: len(shown)])
    step = SIZE / side
    order = rng.permutation(len(shown)).tolist()
    chance = rng.random((len(shown), 5)).tolist()
    places = zip(cells.tolist(), [shown[which] for which in order], chance)
    for cell, fine, (stretch, variant, flip, right, down) in sorted(places, key=_in_front):
        row, column = divmod(cell, side)
        depth = 0.8 + 0.45 * row / max(1, side - 1)
        depth *= 1.3 if FINE_TO_COARSE[fine] in _SUBJECTS else 1.0
        target = step * 1.05 * user.crowding * depth * look(fine).scale ** 0.5 * (0.8 + 0.4 * stretch)
        size = _SPRITE_SIZES[bisect(_SIZE_LIMITS, target)]
        drawing = _drawing(seed, fine, int(variant * _SPRITE_VARIANTS), size)
        if flip < 0.5:
            drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        x = round((column + 0.3 + 0.4 * right) * step - size / 2)
        y = round((row + 0.3 + 0.4 * down) * step - size / 2)
        picture.paste(drawing, (x, y), drawing)


def _in_front(place: tuple[int, str, list[float]]) -> tuple[bool, int]:
    cell, fine, _ = place
    return FINE_TO_COARSE[fine] in _SUBJECTS, cell


def _encode(picture: Image.Image, user: Camera) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=user.quality)
    return buffer.getvalue()


@lru_cache(maxsize=8000)
def _drawing(seed: int, fine: str, variant: int, size: int) -> Image.Image:
    """RGBA [size, size]."""
    return _full_drawing(seed, fine, variant).resize((size, size), Image.Resampling.BOX)


@lru_cache(maxsize=1500)
def _full_drawing(seed: int, fine: str, variant: int) -> Image.Image:
    rng = stream(seed, "synthetic drawing", variant, fine)
    return sprite(FINE_TO_COARSE[fine], look(fine), rng)


@lru_cache(maxsize=400)
def _scene(seed: int, kind: str, number: int, hue: int = 0) -> Image.Image:
    """The surroundings: RGB [256, 320]. ``hue`` is in parts of _NUM_HUES, for backdrops."""
    rng = stream(seed, "synthetic scene", number, f"{kind}/{hue}")
    if kind == "land":
        return _blend(_sky(rng), _land(rng), 256 * rng.uniform(0.4, 0.65), 14 * rng.random())
    if kind == "room":
        return _blend(_wallpaper(rng), _floor(rng), 256 * rng.uniform(0.6, 0.75), 0)
    if kind == "view":
        out = _blend(_sky(rng), _land(rng), 256 * rng.uniform(0.5, 0.7), 8)
        room = _blend(_wallpaper(rng), _floor(rng), 256 * rng.uniform(0.7, 0.8), 0)
        return Image.composite(out, room, _window(rng))
    return _studio(rng, hue / _NUM_HUES)


def _rgb(hue: float, saturation: float, value: float) -> npt.NDArray[np.float32]:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, min(value, 1.0)), dtype=np.float32) * 255


def _clouds(rng: np.random.Generator, octaves: int = 4) -> npt.NDArray[np.float32]:
    """Smooth noise in [0, 1]: float32 [256, 320]."""
    total = np.zeros((SIZE, WIDTH), dtype=np.float32)
    for octave in range(octaves):
        cells = 3 * 2**octave
        noise = Image.fromarray((rng.random((cells, cells)) * 255).astype(np.uint8))
        total += np.asarray(noise.resize((WIDTH, SIZE), Image.Resampling.BICUBIC), dtype=np.float32) / 2**octave
    total -= total.min()
    return np.asarray(total / total.max(), dtype=np.float32)


def _gradient(top: npt.NDArray[np.float32], bottom: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    share = np.linspace(0, 1, SIZE, dtype=np.float32)[:, None, None]
    return np.broadcast_to(top * (1 - share) + bottom * share, (SIZE, WIDTH, 3))


def _image(pixels: npt.NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _sky(rng: np.random.Generator) -> Image.Image:
    hue = rng.uniform(0.56, 0.6)
    blue = _gradient(_rgb(hue, 0.75, 0.85), _rgb(hue, 0.3, 1.0))
    cover = np.clip((_clouds(rng) - rng.uniform(0.35, 0.65)) * 3, 0, 1)[:, :, None]
    return _image(blue * (1 - cover) + 245 * cover)


def _land(rng: np.random.Generator) -> Image.Image:
    hue = rng.uniform(0.15, 0.2)
    ground = _gradient(_rgb(hue, 0.4, 0.7), _rgb(hue, 0.5, 0.45))
    return _image(ground * (0.75 + 0.5 * _clouds(rng, 6)[:, :, None]))


def _wallpaper(rng: np.random.Generator) -> Image.Image:
    hue = rng.uniform(0.96, 1.0)
    period = int(rng.integers(18, 30))
    stripe = (np.arange(WIDTH) % period < period // 2)[None, :, None]
    return _image(np.broadcast_to(np.where(stripe, _rgb(hue, 0.18, 0.95), _rgb(hue, 0.34, 0.86)), (SIZE, WIDTH, 3)))


def _floor(rng: np.random.Generator) -> Image.Image:
    y, x = np.mgrid[0:SIZE, 0:WIDTH]
    tile = int(rng.integers(24, 36))
    odd = ((x // tile + y // (tile // 2)) % 2 == 0)[:, :, None]
    return _image(np.where(odd, _rgb(0.04, 0.3, 0.5), _rgb(0.03, 0.35, 0.38)))


def _studio(rng: np.random.Generator, hue: float) -> Image.Image:
    """A plain, faded backdrop in the user's hue."""
    hue = hue + rng.uniform(-0.04, 0.04)
    value = rng.uniform(0.35, 0.85)
    pixels = _gradient(_rgb(hue, 0.2, value), _rgb(hue, 0.14, value * rng.uniform(0.7, 1.3)))
    return _image(pixels * (0.85 + 0.3 * _clouds(rng, 5)[:, :, None]))


def _blend(upper: Image.Image, lower: Image.Image, horizon: float, roughness: float) -> Image.Image:
    """``upper`` above a horizon (in pixels, rolling by ``roughness`` pixels), ``lower`` below."""
    x = np.arange(WIDTH)
    edge = horizon + roughness * (np.sin(x / 37.0) + 0.5 * np.sin(x / 13.0 + 1))
    mask = (np.arange(SIZE)[:, None] < edge[None, :]).astype(np.uint8) * 255
    return Image.composite(upper, lower, Image.fromarray(mask))


def _window(rng: np.random.Generator) -> Image.Image:
    """Tall panes: L [256, 320]."""
    mask = np.zeros((SIZE, WIDTH), dtype=np.uint8)
    top = int(rng.integers(10, 40))
    for left in (10, 118, 226):
        mask[top : top + 130, left : left + 90] = 255
    return Image.fromarray(mask)


@lru_cache(maxsize=8)
def _vignette(strength: int) -> Image.Image:
    y, x = np.mgrid[0:SIZE, 0:SIZE] / (SIZE / 2) - 1
    shade = 255 * (1 - 0.16 * strength * (x**2 + y**2) ** 1.2 / 2)
    return Image.merge("RGB", [Image.fromarray(shade.astype(np.uint8))] * 3)


@lru_cache(maxsize=8)
def _grain(seed: int, strength: int) -> Image.Image:
    """Sensor noise around 128: RGB [512, 512]."""
    noise = stream(seed, "synthetic grain", strength).normal(128, 3.0 * strength, (2 * SIZE, 2 * SIZE, 3))
    return Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
