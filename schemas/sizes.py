"""Sizes in bytes, as people read and write them."""

_UNITS = {
    unit: factor**power
    for power, letter in enumerate("KMGT", 1)
    for unit, factor in ((letter, 1000), (f"{letter}i", 1024))
}
_SHOWN = ("KiB", "MiB", "GiB", "TiB")


def bytes_of(text: str) -> int:
    """The bytes in a size such as `8GiB`, `1.5 GB` or `100B`."""
    number = text.rstrip("BiKMGT ")
    return int(float(number) * _UNITS.get(text[len(number) :].strip().removesuffix("B"), 1))


def size(count: int) -> str:
    """`count` bytes, such as `1.3 GiB`."""
    if count < 1024:
        return f"{count} B"
    value, unit = count / 1024, 0
    while value >= 1024 and unit < len(_SHOWN) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {_SHOWN[unit]}"
