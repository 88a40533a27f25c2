"""The files of a privacy-utility curve, beside those of its sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedflair.sweep.curve import Curve, curve_csv, curve_of
from fedflair.sweep.curve_plot import draw_curve
from fedflair.sweep.latex import latex_table
from fedflair.sweep.methods import methods_text
from fedflair.sweep.plan import Trial
from fedflair.sweep.results import Outcome
from fedflair.system.files import write_atomically

FILES = ("curve.csv", "curve.tex", "methods.txt", "curve.png", "curve.pdf")


def write_curve(output: Path, trials: Sequence[Trial], outcomes: Sequence[Outcome]) -> Curve:
    """Writes ``FILES`` into the sweep's folder, as far as its runs are done, and returns the curve."""
    curve = curve_of(trials, outcomes, output)
    for name, text in zip(FILES, (curve_csv(curve), latex_table(curve), methods_text(curve) + "\n")):
        write_atomically(output / name, text)
    for name in FILES[3:]:
        draw_curve(curve, output / name)
    return curve
