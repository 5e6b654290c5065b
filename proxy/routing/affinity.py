"""What makes requests belong together: hashes of how a conversation begins, or of what names a session.

A server that has seen a prompt's beginning keeps its keys and values and need not compute them again. Hashes are 64-bit
and never 0, which stands for none.
"""

from hashlib import blake2b

# Long enough to tell conversations apart, short enough to cost nothing; a longer system prompt is shared by all who send it.
PREFIX = 1024


def prefix_hash(messages: bytes) -> int:
    """The hash of a conversation's beginning, the same for each of its requests.

    `messages` is the field's JSON as the client wrote it (`bytes` or `msgspec.Raw`); what counts is its first KiB, up to the
    end of the first message of a user. Text after that differs from request to request. A plain `prompt` may be given too:
    its first KiB counts. Any bytes are taken; 0 if there are none.
    """
    head = bytes(memoryview(messages)[:PREFIX])
    return _hash(head[: _end_of_first_user_turn(head)])


def session_hash(value: bytes) -> int:
    """The hash of what a client calls its session; 0 if it is empty."""
    return _hash(value)


def _hash(value: bytes) -> int:
    if not value:
        return 0
    return int.from_bytes(blake2b(value, digest_size=8).digest(), "big") or 1


# Goes from string to string: what lies between them is JSON's structure, where braces and brackets count. A message is an
# object in an array, so its own keys are at depth 2; parts of its content lie deeper.
def _end_of_first_user_turn(head: bytes) -> int:
    at, depth = 0, 0
    before = string = b""
    of_user = False
    while at < len(head):
        quote = head.find(b'"', at)
        until = len(head) if quote < 0 else quote
        for position in range(at, until):
            character = head[position]
            if character in b"[{":
                depth += 1
            elif character in b"]}":
                depth -= 1
                if of_user and depth == 1:
                    return position + 1
        if quote < 0:
            break
        between = head[at:until].strip()
        before, at = string, _end_of_string(head, quote)
        string = head[quote:at]
        if depth == 2 and between == b":" and before == b'"role"':
            of_user = string == b'"user"'
    return len(head)


def _end_of_string(head: bytes, quote: int) -> int:
    at = quote + 1
    while (at := head.find(b'"', at)) >= 0:
        escapes = at
        while head[escapes - 1] == ord("\\"):
            escapes -= 1
        if (at - escapes) % 2 == 0:
            return at + 1
        at += 1
    return len(head)
