"""A stock of frames with their ground truth, drawn once by processes and kept on disk.

    draw(part) ──► rows of every array ──► one file per array, written by several processes ──► read as memory maps

Every part has a seed of its own, so a stock depends on its plan alone and not on the number of processes. Nothing here needs torch,
which the processes need not import.

Shape letters: N frames of the stock.
"""

import dataclasses
import functools
import json
import multiprocessing
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from vlm_rewards.labelers.domains.pretraining import Resources

ROWS = 256
"""Frames of a part."""


class Field(NamedTuple):
    """Shape and type of an array's rows."""

    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class StockPlan:
    """The recipe of a stock.

    Args:
        name: Name of its folder.
        draw: Function of the number of a part, from 0, that returns `ROWS` rows of every array; it can be pickled.
        fields: The arrays by name.
        num_frames: N, a multiple of `ROWS`.
    """

    name: str
    draw: Callable[[int], Mapping[str, np.ndarray]]
    fields: Mapping[str, Field]
    num_frames: int

    @classmethod
    def of(
        cls, name: str, draw: Callable[[int], Mapping[str, np.ndarray]], fields: Mapping[str, Field], num_frames: int
    ) -> "StockPlan":
        """Returns the recipe of a stock of at least so many frames; its name tells how many."""
        total = whole_parts(num_frames)
        return cls(name=f"{name}-{total}", draw=draw, fields=fields, num_frames=total)


def whole_parts(num_frames: int) -> int:
    """Returns the smallest multiple of `ROWS` that holds a number of frames, and is not 0."""
    return ROWS * max(1, -(-num_frames // ROWS))


def open_stock(plan: StockPlan, resources: "Resources") -> dict[str, np.ndarray]:
    """Returns the arrays of a stock, which is drawn if the folder of stocks does not hold it.

    The first part of a stock that is there is drawn again and compared: code and libraries may draw other frames by now.

    Args:
        plan: The recipe.
        resources: The folder, and the number of processes that draw; with 1 this one does.

    Returns:
        Arrays of N rows by name, read-only memory maps.

    Raises:
        ValueError: The stock that is there has other frames than would be drawn now.
    """
    home, processes = resources.stock / plan.name, resources.processes
    if (home / "finished.json").is_file():
        _check_first_part(plan, home)
    else:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        for name, field in plan.fields.items():
            np.lib.format.open_memmap(
                home / f"{name}.npy", "w+", np.dtype(field.dtype), (plan.num_frames, *field.shape)
            )
        write = functools.partial(_write_part, plan.draw, home)
        parts = range(plan.num_frames // ROWS)
        if processes == 1:
            for part in parts:
                write(part)
        else:
            with multiprocessing.get_context("spawn").Pool(processes) as pool:
                for _ in pool.imap_unordered(write, parts):
                    pass
        (home / "finished.json").write_text(json.dumps({"num_frames": plan.num_frames}) + "\n")
    return _arrays(plan, home)


def _arrays(plan: StockPlan, home: Path) -> dict[str, np.ndarray]:
    return {name: np.load(home / f"{name}.npy", mmap_mode="r") for name in plan.fields}


def _check_first_part(plan: StockPlan, home: Path) -> None:
    arrays = _arrays(plan, home)
    other = [name for name, rows in plan.draw(0).items() if not np.array_equal(arrays[name][:ROWS], rows)]
    if other:
        raise ValueError(
            f"a stock must hold what is drawn now: got other {', '.join(other)} in {home}. Remove it, or give another folder"
        )


def _write_part(draw: Callable[[int], Mapping[str, np.ndarray]], home: Path, part: int) -> None:
    for name, rows in draw(part).items():
        array = np.load(home / f"{name}.npy", mmap_mode="r+")
        array[ROWS * part : ROWS * (part + 1)] = rows
