"""Forms of text: patterns that fit the whole of it."""


def whole(pattern: str) -> str:
    """`pattern` for a whole text, in Python as in JSON Schema. Python's `$` alone lets a line end follow, which would then
    stand in headers, and JSON Schema has no other word for the end.
    """
    return rf"^(?:{pattern})$(?!\n)"
