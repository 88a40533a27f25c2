"""The drawn photographs: real JPEGs that depend on what they should, and in which the labels can be seen."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score

from fedflair.data.synthetic.images import SIZE, camera, render
from fedflair.data.synthetic.sprites import CANVAS, MOTIFS, sprite
from fedflair.data.synthetic.synthesize import synthetic_source
from fedflair.data.synthetic.vocabulary import COARSE_LABELS, FINE_LABELS, look
from fedflair.sampling import stream


def pixels(encoded: bytes) -> npt.NDArray[np.float64]:
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64)


def test_a_photograph_is_a_256_pixel_rgb_jpeg() -> None:
    with Image.open(io.BytesIO(render(0, "7@N00", 0, ("dog", "grass")))) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (256, 256), "RGB")
        assert SIZE == 256


def test_a_photograph_depends_on_seed_user_place_and_labels_alone() -> None:
    first = render(0, "7@N00", 0, ("dog", "grass"))
    render(0, "8@N00", 3, ("bread",))
    assert render(0, "7@N00", 0, ("dog", "grass")) == first
    others = [
        render(1, "7@N00", 0, ("dog", "grass")),
        render(0, "8@N00", 0, ("dog", "grass")),
        render(0, "7@N00", 1, ("dog", "grass")),
        render(0, "7@N00", 0, ("cat", "grass")),
    ]
    assert len({first, *others}) == 5


def test_as_many_labels_as_an_image_can_have_find_room() -> None:
    """36 fine-grained labels, FLAIR's most, in a picture that 35 do not make."""
    names = (*FINE_LABELS["food"][:18], *FINE_LABELS["animal"][:18])
    assert render(0, "7@N00", 0, names) != render(0, "7@N00", 0, names[:35])


def test_users_have_looks_of_their_own() -> None:
    looks = [camera(0, f"{k}@N00") for k in range(20)]
    assert len({look.table for look in looks}) == 20
    assert camera(0, "3@N00") == looks[3]

    def colour(user: int) -> npt.NDArray[np.float64]:
        shots = [pixels(render(0, f"{user}@N00", k, ("dog",))) for k in range(4)]
        return np.array([shot.mean(axis=(0, 1)) for shot in shots])

    colours = np.array([colour(user) for user in range(6)])
    between = colours.mean(axis=1).std(axis=0).mean()
    within = colours.std(axis=1).mean()
    assert between > within


@pytest.mark.parametrize("coarse", COARSE_LABELS)
def test_each_fine_label_of_a_motif_is_drawn_differently(coarse: str) -> None:
    drawn = [sprite(coarse, look(name), stream(0, "test")).tobytes() for name in FINE_LABELS[coarse][:8]]
    assert len(set(drawn)) == len(drawn)
    alpha = np.frombuffer(drawn[0], dtype=np.uint8).reshape(CANVAS, CANVAS, 4)[..., 3]
    # Something is there, and the picture behind it too.
    assert 0.2 < (alpha > 128).mean() < 1.0


def test_there_is_a_motif_for_each_coarse_label() -> None:
    assert set(MOTIFS) == set(COARSE_LABELS)


def test_the_labels_can_be_seen() -> None:
    """A linear model on the share of each colour, fitted on train's users, ranks val's and test's far above chance."""
    features: dict[bool, list[npt.NDArray[np.float64]]] = {True: [], False: []}
    labels: dict[bool, list[list[bool]]] = {True: [], False: []}
    for record in synthetic_source("mini", 0, num_users=60, processes=1).records():
        train = record.partition == "train"
        features[train].append(histogram(record.image))
        labels[train].append([label in record.labels for label in COARSE_LABELS])
    model = Ridge(1.0).fit(np.array(features[True]), np.array(labels[True], dtype=float))
    truth, scores = np.array(labels[False]), model.predict(np.array(features[False]))
    precision = np.mean([average_precision_score(truth[:, k], scores[:, k]) for k in range(len(COARSE_LABELS))])
    assert precision > truth.mean() + 0.25


def histogram(encoded: bytes) -> npt.NDArray[np.float64]:
    """Root of the share of each of 6 x 6 x 6 colours, at 64 pixels: float64 [216]."""
    with Image.open(io.BytesIO(encoded)) as image:
        small = np.asarray(image.resize((64, 64), Image.Resampling.BOX), dtype=np.int64) * 6 // 256
    codes = (small * [36, 6, 1]).sum(axis=2).ravel()
    return np.sqrt(np.bincount(codes, minlength=216) / codes.size)
