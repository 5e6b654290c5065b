"""Making client keys: `qv-`, 34 random letters and digits (202 bits), and 6 that check them.

Nobody finds such a key by trying, and a mistyped one is known as such without asking who has which. The check is the CRC-32
of what stands before it, which whoever searches files for lost keys can compute too.
"""

import secrets
import string
from zlib import crc32

PREFIX = "qv-"
RANDOM, CHECK = 34, 6
LENGTH = len(PREFIX) + RANDOM + CHECK

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_MARK = PREFIX.encode()


def mint() -> str:
    """A new key."""
    text = PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM))
    return text + _check(text.encode())


def is_minted(key: bytes) -> bool:
    """Whether `key` has the form and the check of one made here."""
    return len(key) == LENGTH and key.startswith(_MARK) and key[-CHECK:] == _check(key[:-CHECK]).encode()


def is_mistyped(key: bytes) -> bool:
    """Whether `key` was meant to be one made here, and is not."""
    return key.startswith(_MARK) and not is_minted(key)


def _check(text: bytes) -> str:
    rest, digits = crc32(text), ""
    for _ in range(CHECK):
        rest, digit = divmod(rest, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
