"""What happened in each epoch of a training run, as a small table."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, overload

from cutnn.train._storage import atomic

__all__ = ["History"]


class History:
    """One row an epoch; `history["train_loss"]` is a column, `history[-1]` a row, iteration gives rows.

    `fit` writes the columns epoch, train_loss, train_accuracy, validation_loss, validation_accuracy, lr,
    seconds: loss and accuracy of training are means over the epoch, while the weights moved; those of
    validation belong to its end. Accuracies are fractions. Columns that a run does not have are left out.

    >>> history = History()
    >>> history.append(epoch=1, train_loss=2.3)
    >>> history.append(epoch=2, train_loss=1.1)
    >>> history["train_loss"], history[-1]
    ([2.3, 1.1], {'epoch': 2, 'train_loss': 1.1})
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def append(self, **row: Any) -> None:
        """Add a row; every row has the columns of the first."""
        if self._rows and list(row) != self.columns:
            raise ValueError(f"history: a row of {', '.join(row)}; the columns are {', '.join(self.columns)}")
        self._rows.append(row)

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self._rows[0]) if self._rows else []

    @overload
    def __getitem__(self, key: str) -> list[Any]: ...
    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...
    def __getitem__(self, key: str | int) -> list[Any] | dict[str, Any]:
        if isinstance(key, int):
            return self._rows[key]
        if key not in self.columns:
            raise KeyError(
                f"history has no column {key!r}; it has {', '.join(self.columns) or 'no rows yet'}"
            )
        return [row[key] for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)

    def __repr__(self) -> str:
        if not self._rows:
            return "History, no epochs"
        return (
            f"History, {len(self)} epochs, last {', '.join(f'{k} {_short(v)}' for k, v in self[-1].items())}"
        )

    def to_csv(self, path: str | Path) -> None:
        """Write the table, below a line of names, in place of what was there; never half a file."""
        with atomic(path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self._rows)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
