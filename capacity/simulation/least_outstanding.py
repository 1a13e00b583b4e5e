"""Counts of outstanding requests by ordinal, and the ordinal with the fewest, without reading all counts."""

from __future__ import annotations


class OutstandingCounts:
    """The number of outstanding requests of each of k ordinals, which changes by one at a time.

    For each number there is a set of the ordinals that have it, as the bits of an integer: finding the lowest bit takes
    one machine word for 64 ordinals, where a list is read item by item.
    """

    def __init__(self, k: int) -> None:
        self._levels = [(1 << k) - 1, 0]
        self._count = [0] * k
        self._lowest = 0

    def fewest(self, first: int, among: int = -1) -> int:
        """Returns the ordinal with the fewest outstanding. Of several it is the next from `first` on, in turn.

        `among` has a bit for each ordinal that may be chosen.
        """
        level = self._lowest
        while not (mask := self._levels[level] & among):
            level += 1
        later = mask >> first
        if later:
            return first + (later & -later).bit_length() - 1
        return (mask & -mask).bit_length() - 1

    def increment(self, ordinal: int) -> None:
        """Counts one more request on this ordinal."""
        levels, count, bit = self._levels, self._count[ordinal], 1 << ordinal
        levels[count] ^= bit
        self._count[ordinal] = count + 1
        if count + 1 == len(levels):
            levels.append(0)
        levels[count + 1] |= bit
        while not levels[self._lowest]:
            self._lowest += 1

    def decrement(self, ordinal: int) -> None:
        """Counts one request fewer on this ordinal."""
        levels, count, bit = self._levels, self._count[ordinal], 1 << ordinal
        levels[count] ^= bit
        levels[count - 1] |= bit
        self._count[ordinal] = count - 1
        if count <= self._lowest:
            self._lowest = count - 1
