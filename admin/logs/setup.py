"""Making this process log: structlog, the standard library's logging, and levels, all into one pipeline."""

import logging
import sys
from pathlib import Path
from typing import IO

import structlog
from quiver.proxy.telemetry.levels import LEVELS, NUMBERS, TRACE
from quiver.schemas.config import Config, Log

from .logger import FromLibraries, Logger, completed
from .pipeline import Pipeline
from .redactor import REDACTOR

# Libraries' own accounts of what they do are of use to their authors only.
LIBRARY_LEVEL = logging.WARNING
NAME = Path("logs", "quiver.jsonl")


def log_file(config: Log, folder: Path) -> Path | None:
    """Where the file is to be, by default in the data `folder`; None for none. Windows lets nobody rename or share a file that
    is open, so there the log goes to stderr only.
    """
    if config.file in (False, "", "false") or sys.platform == "win32":
        return None
    return Path(config.file) if isinstance(config.file, str) else folder / NAME


def configure(config: Log, stream: IO[str] | None = None, file: Path | None = None) -> Pipeline:
    """Send everything that this process logs to `stream` (stderr) and to `file`. What `start` on the pipeline changes: from
    then on a thread writes.
    """
    pipeline = Pipeline(config, stream, file)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, completed],
        wrapper_class=Logger,
        logger_factory=lambda *_: pipeline,
        cache_logger_on_first_use=False,
    )
    logging.addLevelName(TRACE, "TRACE")
    logging.basicConfig(handlers=[FromLibraries(pipeline.take, pipeline.flush)], level=logging.NOTSET, force=True)
    LEVELS.changed = _tell_libraries
    LEVELS.configure(config.level, config.levels)
    return pipeline


def put_in_force(config: Config) -> None:
    """What of the log can change while it runs: which secrets to look for, and levels. Those that an operator changed stay,
    unless the configuration's own did.
    """
    REDACTOR.learn_from(config)
    LEVELS.reconfigure(config.log.level, config.log.levels)


def _tell_libraries() -> None:
    """Their loggers decide for themselves, which costs least: by default only what should worry somebody."""
    logging.getLogger().setLevel(max(NUMBERS[LEVELS.common], LIBRARY_LEVEL))
    own = LEVELS.own()
    for name in _told - own.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in own.items():
        logging.getLogger(name).setLevel(NUMBERS[level])
    _told.clear()
    _told.update(own)


_told: set[str] = set()
