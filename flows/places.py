"""Who may start: a run has so many places, and a stage fills as many of them as it has workers."""

from collections.abc import Callable, Iterator


class Places:
    """Places of a run.

    Args:
        count: how many there are.
        of: how many a stage fills; one that wants more than there are has all to itself.
    """

    def __init__(self, count: int, of: Callable[[str], int]) -> None:
        self._count, self._of = count, of
        self._taken: dict[str, int] = {}

    def take(self, ready: list[str]) -> Iterator[str]:
        """Stages that start now, which leave `ready`: from its front, as long as there is room.

        None is passed over for a smaller one behind it, else a large one might wait for ever.
        """
        while ready:
            wanted = min(self._of(ready[0]), self._count)
            if sum(self._taken.values()) + wanted > self._count:
                return
            self._taken[ready[0]] = wanted
            yield ready.pop(0)

    def give(self, name: str) -> None:
        """A stage has ended."""
        del self._taken[name]
