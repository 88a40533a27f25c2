"""What a model says of photographs, as values."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedflair.api.rows import Rows
from fedflair.errors import ConfigError, FedflairError
from fedflair.privacy.ledger import coverage
from fedflair.system.terminal import cell

if TYPE_CHECKING:
    import pandas

_MOST_SHOWN = 20


@dataclass(frozen=True, repr=False, eq=False)
class Predictions:
    """names: of the photographs. labels: the model's. probabilities: float32 [photographs, labels], each on its own.

    left_out: photographs that could not be read, name -> why. facts: which model it was, and where a run promised an
    epsilon that it does not cover these numbers.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    left_out: Mapping[str, str]
    facts: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.names)

    def top(self, number: int = 5) -> Rows:
        """The most probable labels of each photograph, a row each: ``photograph``, ``label``, ``probability``."""
        if number < 1:
            raise ConfigError(f"top: {number} is impossible; it must be at least 1")
        rows = []
        for name, row in zip(self.names, self.probabilities):
            for position in np.argsort(-row, kind="stable")[:number].tolist():
                rows.append({"photograph": name, "label": self.labels[position], "probability": float(row[position])})
        return Rows(tuple(rows), "predictions")

    def frame(self) -> pandas.DataFrame:
        """A ``pandas.DataFrame`` with a row a photograph and a column a label.

        Raises FedflairError where pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise FedflairError("pandas: not installed here; pip install pandas, or use probabilities") from error
        return pandas.DataFrame(self.probabilities, index=list(self.names), columns=list(self.labels))

    def __repr__(self) -> str:
        lost = f", {len(self.left_out):,} left out" if self.left_out else ""
        uncovered = "; no epsilon covers them" if coverage.FIELD in self.facts else ""
        return f"<predictions of {len(self):,} photographs, {len(self.labels):,} labels{lost}{uncovered}>"

    def _repr_html_(self) -> str:
        """The first photographs with their most probable labels, for a notebook."""
        lines = []
        for name, row in zip(self.names[:_MOST_SHOWN], self.probabilities):
            best = ", ".join(f"{self.labels[k]} {row[k]:.3f}" for k in np.argsort(-row, kind="stable")[:5].tolist())
            lines.append(f"<tr><td>{_text(name)}</td><td>{_text(best)}</td></tr>")
        return f"<p>{_text(repr(self))}</p><table><tbody>{''.join(lines)}</tbody></table>"


def _text(text: str) -> str:
    return html.escape(cell(text))
