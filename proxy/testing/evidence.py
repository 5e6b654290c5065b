"""What a finished run leaves to be judged."""

import hashlib
from collections import Counter

from ..telemetry.record import Record
from .clients import ClientLog
from .knobs import Plan
from .network import SimulatedNetwork
from .upstream import ServerLog


class Evidence:
    """Everything that anyone saw. `noticed`: what was wrong at some moment of the run; `stopped_at`: when the gateway was
    told to stop.
    """

    def __init__(self, plan: Plan, network: SimulatedNetwork) -> None:
        self.plan, self.network = plan, network
        self.clients, self.servers = ClientLog(), ServerLog()
        self.records: list[Record] = []
        self.noticed: list[str] = []
        self.stopped_at = 0.0
        self.virtual_seconds = 0.0

    def __repr__(self) -> str:
        return f"<Evidence: {self.clients!r}, {self.servers!r}, {len(self.records)} records>"

    def fingerprint(self) -> str:
        """The same for two runs exactly when all that was traced is the same."""
        return hashlib.blake2b(repr(self.network.trace).encode(), digest_size=16).hexdigest()

    def faults(self) -> Counter[str]:
        """How often each kind of fault struck."""
        counted: Counter[str] = Counter(self.network.struck.values())
        for _, what, *rest in self.network.trace:
            if what == "connect" and rest[-1] != "open":
                counted[str(rest[-1])] += 1
            elif what == "start":
                counted[f"server {rest[-1]}"] += 1
            elif what == "operator":
                counted[f"operator {rest[0]}"] += 1
        return counted

    def outcomes(self) -> Counter[str]:
        """How requests ended, by the gateway's records."""
        return Counter(record.error or record.outcome for record in self.records)
