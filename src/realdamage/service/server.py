"""Runs the app as a process: SIGHUP reloads keys and model, SIGTERM finishes and stops."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import threading

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from realdamage.errors import RealDamageError
from realdamage.service.app import create_app
from realdamage.service.metrics import configure_logging, log_event
from realdamage.service.routes import Service, reload_keys, reload_model
from realdamage.service.settings import Settings

_MAX_HEAD_BYTES = 32 * 1024


def serve(settings: Settings) -> None:
    """Serve until a signal. Raises RealDamageError when the port or a model cannot be used."""
    configure_logging()
    os.umask(0o077)  # what is stored of a claim is for this user alone
    app = create_app(settings)
    service: Service = app.state.service
    service.load()  # here, so that a broken file ends the command with its own message
    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    log_event("listening", url=url, keys=len(service.keys.keys))
    config = uvicorn.Config(
        app,
        http=_impatient(settings.deadline),
        ws="none",
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(settings.deadline) + 5,
    )
    _reload_on_sighup(service)
    interrupted = False
    with contextlib.closing(listener):
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            interrupted = True
    others = set(threading.enumerate()) - {threading.main_thread()}
    if not all(thread.daemon for thread in others):
        # Python would wait for these threads, and one may be stuck in a photo.
        os._exit(130 if interrupted else 0)
    if interrupted:
        raise KeyboardInterrupt


def _reload_on_sighup(service: Service) -> None:
    """Read keys and model again at each SIGHUP, where there is one."""

    def reload() -> None:
        reload_keys(service)
        reload_model(service)

    if hasattr(signal, "SIGHUP"):

        def begin(*_: object) -> None:
            threading.Thread(target=reload, daemon=True).start()

        signal.signal(signal.SIGHUP, begin)


def _impatient(seconds: float) -> type[H11Protocol]:
    """Connections that close when no request has begun or runs for so long: uvicorn waits for ever
    for a head or the rest of a refused body. h11, because it bounds the size of heads."""

    class Impatient(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._start()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._start()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
            super().connection_lost(exc)

        def _start(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_later(seconds, self._end)

        def _end(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Impatient


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.host, settings.port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error
        raise RealDamageError(
            f"cannot listen on {host}:{port}: {why}. Choose another --host or --port (0 takes a "
            "free one)",
            code="cannot_listen",
        ) from error
