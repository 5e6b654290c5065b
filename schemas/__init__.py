"""Types that cross a border: OpenAI's wire format, the engine's requests, configuration, errors.

Frozen msgspec structs whose annotations are the validation. No I/O here, and no import from the rest of Quiver.
"""
