"""Who may start: a run has so many places, and a stage fills as many of them as it has workers."""

from collections.abc import Callable, Iterator


class Places:
    """Places of a run.

    Args:
        count: how many there are.
        of: how many a stage fills.
        urgency: of a stage; the most urgent one that is ready starts first.
    """

    def __init__(self, count: int, of: Callable[[str], int], urgency: Callable[[str], float]) -> None:
        self._count, self._of, self._urgency = count, of, urgency
        self._taken: dict[str, int] = {}

    def take(self, ready: list[str]) -> Iterator[str]:
        """Stages that start now, which leave `ready`: as long as a place is free, were it but one.

        A stage of several workers that waited for as many places would leave those that are free idle. It
        starts with the first, for a while there are more workers than places, and no other stage starts until
        it has its own.
        """
        ready.sort(key=lambda name: (-self._urgency(name), name))
        while ready and sum(self._taken.values()) < self._count:
            self._taken[ready[0]] = self._of(ready[0])
            yield ready.pop(0)

    def give(self, name: str) -> None:
        """A stage has ended."""
        del self._taken[name]
