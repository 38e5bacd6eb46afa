"""Runs the cells of a stage, one after another in this process."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from mipriv.errors import InputError
from tasks.engine.cells import Cell, Place, Result, compute, key
from tasks.engine.progress import Progress


def run(cells: Sequence[Cell], place: Place) -> dict[str, Result]:
    """Compute the cells that are not there, and say how far it is on stderr.

    `Cell` and `Place` are all that `compute` needs, so that a worker elsewhere can be handed the two.

    Returns:
        Results by cell name, in the order of `cells`.

    Raises:
        InputError: as the cell raised it.
        Exception: whatever else the cell raised, with a note that names the cell.
    """
    _distinct(cells, place)
    results: dict[str, Result] = {}
    with Progress(place.address, len(cells)) as progress:
        for cell in cells:
            try:
                results[cell.name] = result = compute(cell, place, progress.part(cell.name))
            except InputError:
                raise
            except Exception as error:
                error.add_note(f"in cell {cell.name} of {place.address}")
                raise
            progress.end(cell.name, result.resumed, result.seconds)
    return results


def _distinct(cells: Sequence[Cell], place: Place) -> None:
    """Refuse two cells of one name, or of one key: a seed that nobody passed on looks like that."""
    names: set[str] = set()
    keys: dict[str, str] = {}
    for cell in cells:
        path = PurePosixPath(cell.name)
        if (
            path.is_absolute()
            or not path.parts
            or ".." in path.parts
            or str(path) != cell.name
            or cell.name in names
        ):
            raise ValueError(
                f"cell {cell.name!r}: a name is a relative path that no other has, e.g. seed-0/ids-000"
            )
        names.add(cell.name)
        twin = keys.setdefault(key(cell, place), cell.name)
        if twin != cell.name:
            raise ValueError(
                f"cells {twin} and {cell.name} are the same work; what sets them apart is not in kwargs"
            )
