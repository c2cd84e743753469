"""Log lines as JSON, one a line: what happened, never what a photo shows or what its file is called."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

LOGGER = logging.getLogger("realdamage.service")


class JsonLines(logging.Formatter):
    """A record as one JSON object; `extra={"fields": {…}}` is put beside time, level and event."""

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            values["trace"] = self.formatException(record.exc_info)
        return json.dumps(values, default=str)


def configure_logging(stream: TextIO | None = None) -> None:
    """Send our lines and uvicorn's to a stream (standard error); called by the command, never on import."""
    output = logging.StreamHandler(stream or sys.stderr)
    output.setFormatter(JsonLines())
    for name in ("realdamage.service", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [output], False
        logger.setLevel(logging.INFO)


def tell(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """One line with these fields."""
    LOGGER.log(level, event, extra={"fields": fields})
