"""The table of a privacy-utility curve for a paper: LaTeX, with the booktabs package."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fedflair.privacy.accounting import shown
from fedflair.sweep.budgets import NONE
from fedflair.sweep.curve import Curve, Point, Scores
from fedflair.sweep.results import words_of
from fedflair.system.terminal import cell

_MARKS: Mapping[str, str] = {"*": "*", "†": r"\dagger", "‡": r"\ddagger"}
_ESCAPES: Mapping[str, str] = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{mark: f"${{}}^{{{command}}}$" for mark, command in _MARKS.items()},
    "±": r"$\pm$",
}


def latex_table(curve: Curve) -> str:
    """A floating table; both epsilons of simulated runs stand in it, with their marks, which notes below explain."""
    several, score = len(curve.names) > 1, words_of(curve.metric)
    simulated = any(point.facts is not None and point.facts.get("simulated") for point in curve.points)
    headings = [r"$\varepsilon$", *([r"$\varepsilon$ of the run"] if simulated else []), "noise / bound", "seeds"]
    headings += [f"test {score}", f"val {score}"]
    rows = [_row(point, simulated=simulated) for point in curve.points]
    if several:
        headings.insert(0, "")
        names = [point.curve if point is curve.of(point.curve)[0] else "" for point in curve.points]
        rows = [[escaped(name), *row] for name, row in zip(names, rows)]
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}[t]",
        r"  \centering",
        f"  \\caption{{{_caption(curve, score)}}}",
        r"  \label{tab:privacy-utility}",
        f"  \\begin{{tabular}}{{{'l' * several}{'r' * (len(headings) - several)}}}",
        r"    \toprule",
        f"    {' & '.join(headings)} \\\\",
        r"    \midrule",
        *(f"    {' & '.join(row)} \\\\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        *(f"  \\par\\footnotesize {escaped(note)}" for note in curve.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_ESCAPES.get(character, character) for character in cell(text))


def _caption(curve: Curve, score: str) -> str:
    at = "" if curve.delta is None else f" at $\\delta={number(f'{curve.delta:g}').strip('$')}$"
    return f"Test {score} against the privacy budget{at}: mean $\\pm$ standard deviation over seeds."


def _row(point: Point, *, simulated: bool) -> list[str]:
    epsilon, own = "none", "--"
    if point.asked != NONE and point.facts is None:
        epsilon = f"({number(f'{point.asked:g}')})"
    elif point.facts is not None:
        whole, of_run = shown.figures(point.facts)
        marks = "".join(_MARKS[mark] for mark in shown.marks_of(point.facts))
        epsilon, own = _epsilon(whole, marks), _epsilon(of_run, "")
    noise = "--" if point.noise is None else number(f"{point.noise:.3g}")
    seeds = f"{point.num_done}/{len(point.trials)}" if point.num_done < len(point.trials) else str(point.num_done)
    return [epsilon, *([own] if simulated else []), noise, seeds, _score(point.test), _score(point.val)]


def _epsilon(value: float, marks: str) -> str:
    told = shown.show(value)
    text = r"\infty" if told == "infinite" else number(told).strip("$")
    return f"${text}{f'^{{{marks}}}' if marks else ''}$"


def _score(scores: Scores) -> str:
    if scores.mean is None:
        return "--"
    return f"${scores.mean:.3f}" + ("$" if scores.std is None else f" \\pm {scores.std:.3f}$")


def number(text: str) -> str:
    """A number as people write it: ``1.6e+06`` as 1.6 times ten to the sixth."""
    found = re.fullmatch(r"([\d.]+)e([+-]\d+)", text)
    return f"${text}$" if found is None else f"${found[1]} \\times 10^{{{int(found[2])}}}$"
