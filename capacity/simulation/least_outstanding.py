"""Which of many ordinals has the fewest requests outstanding, found without looking at each."""

from __future__ import annotations


class Outstanding:
    """Counts of k ordinals, which go up and down by one. By count, a number with a bit for each ordinal that has it.

    A search of bits takes a machine word for 64 ordinals, where a list is read one by one.
    """

    def __init__(self, k: int) -> None:
        self._levels = [(1 << k) - 1, 0]
        self._count = [0] * k
        self._least = 0

    def fewest(self, turned: int, among: int = -1) -> int:
        """The ordinal with the fewest; ties go round, from `turned` on. `among`: a bit for each that may be chosen."""
        level = self._least
        while not (mask := self._levels[level] & among):
            level += 1
        later = mask >> turned
        if later:
            return turned + (later & -later).bit_length() - 1
        return (mask & -mask).bit_length() - 1

    def up(self, ordinal: int) -> None:
        """One more on this ordinal."""
        levels, count, bit = self._levels, self._count[ordinal], 1 << ordinal
        levels[count] ^= bit
        self._count[ordinal] = count + 1
        if count + 1 == len(levels):
            levels.append(0)
        levels[count + 1] |= bit
        while not levels[self._least]:
            self._least += 1

    def down(self, ordinal: int) -> None:
        """One fewer on this ordinal."""
        levels, count, bit = self._levels, self._count[ordinal], 1 << ordinal
        levels[count] ^= bit
        levels[count - 1] |= bit
        self._count[ordinal] = count - 1
        if count <= self._least:
            self._least = count - 1
