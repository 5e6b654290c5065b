"""What happens to one circuit, counted for the metrics page."""

from ..telemetry.histogram import Histogram


class Tally:
    """How often a circuit came into each state, and how long checks took that passed and that failed."""

    __slots__ = ("entered", "failed", "passed")

    def __init__(self) -> None:
        self.entered: dict[str, int] = {}
        self.passed, self.failed = Histogram(), Histogram()

    def __repr__(self) -> str:
        return f"<Tally: {sum(self.entered.values())} changes of state>"

    def moved(self, state: str) -> None:
        """The circuit is in `state` now."""
        self.entered[state] = self.entered.get(state, 0) + 1

    def checked(self, passed: bool, seconds: float) -> None:
        """A check ended."""
        (self.passed if passed else self.failed).observe(seconds)
