"""One explanation of tensors that differ."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Diagnosis:
    """What explains some of the tensors that differ.

    Attributes:
        name: of a known fault, or what kind of difference it is.
        says: in one line.
        exact: B is that to the bit; else it is how it looks.
        tensors: that it explains.
        concerns: tensors that it may concern at all; 0: not known.
        of: "A" if B is what the fault makes of A; "B" if A is what it makes of B.
        others: names of the same permutation.
        rivals: other permutations that explain as much.
        known_of: whose fault it was where it was reported; "": of nobody.
        relative: the least and the largest difference, relative to A; () where it is exact.
    """

    name: str
    says: str
    exact: bool
    tensors: list[str] = field(default_factory=list)
    concerns: int = 0
    of: str = "A"
    others: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    relative: tuple[float, float] | tuple[()] = ()
    known_of: str = ""

    @property
    def key(self) -> tuple[str, str, bool, str]:
        """Equal for those that say the same, of other tensors."""
        return self.name, self.says, self.exact, self.of

    def add(self, other: Diagnosis) -> None:
        """Take the tensors of one of the same key."""
        self.tensors += other.tensors
        self.rivals = tuple(name for name in self.rivals if name in other.rivals)
        if self.relative and other.relative:
            ends = (*self.relative, *other.relative)
            self.relative = min(ends), max(ends)
