"""A client: whoever a key or an address stands for. One object each, for as long as it is known."""

from quiver.schemas.config import Priority

from .buckets import TokenBucket
from .limits import Header, LimitHeaders, TokenBudget


class Client:
    """What one client may do, and what is left of its limits.

    `name` is for logs and records and gives no key away. `scope` tells clients apart: nothing kept for one scope may be
    used for another. `models` empty means all. `priority` is the highest it may ask for. `limited`:
    whether there is any limit to tell of. `keep_content`: whether its prompts and answers may be kept.
    """

    __slots__ = (
        "_request_headers",
        "keep_content",
        "limited",
        "models",
        "name",
        "priority",
        "requests",
        "scope",
        "tokens",
    )

    def __init__(
        self,
        name: str,
        scope: str,
        *,
        models: frozenset[str] = frozenset(),
        priority: Priority = "normal",
        requests: TokenBucket | None = None,
        tokens: TokenBudget | None = None,
        keep_content: bool = False,
    ) -> None:
        self.name, self.scope = name, scope
        self.models, self.priority = models, priority
        self.requests, self.tokens = requests, tokens
        self.keep_content = keep_content
        self.limited = requests is not None or tokens is not None
        self._request_headers = None if requests is None else LimitHeaders(b"requests", requests)

    def __repr__(self) -> str:
        return f"<Client {self.name}>"

    def allows(self, model: str) -> bool:
        """Whether it may use a model."""
        return not self.models or model in self.models

    def limit_headers(self, now: float) -> list[Header]:
        """Reply headers that tell of the limits it has; none for those it does not have."""
        headers: list[Header] = []
        if self._request_headers is not None:
            headers = self._request_headers.at(now)
        if self.tokens is not None:
            headers += self.tokens.headers(now)
        return headers
