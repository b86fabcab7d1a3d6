"""The gateway as a process: listens, works on the inbox, and ends in good order when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from prefect_routines.config import Config, config
from prefect_routines.errors import SettingsError
from prefect_routines.gateway.answers import MOST_HEADERS
from prefect_routines.gateway.limits import Limits
from prefect_routines.secret_shapes import SECRET
from prefect_routines.visible import visible

if TYPE_CHECKING:
    from prefect_routines.gateway.service import Service

_GRACE = 10  # seconds for requests under way when the process is told to end


class _Protocol(H11Protocol):
    """uvicorn's protocol, with a limit on the time that a request's headers may take; uvicorn itself waits for ever."""

    seconds = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self.seconds, self._give_up)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None:
            self._deadline.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """The next request on the same connection has as long."""
        super().on_response_complete()
        self._deadline.cancel()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._deadline = self.loop.call_later(self.seconds, self._give_up)

    def _give_up(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


class _Server(uvicorn.Server):
    """uvicorn's server; a signal ends it with status 0 instead of being raised again at the end."""

    def __init__(self, settings: uvicorn.Config, started: Callable[[], None], ending: Callable[[], None]) -> None:
        super().__init__(settings)
        self._on_start, self._on_end = started, ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self._told)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _told(self) -> None:
        self.force_exit = self.should_exit  # told twice: at once
        self.should_exit = True
        self._on_end()


async def serve(host: str, port: int, *, started: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        port: 0 takes a free one.
        started: Called with the address as soon as it listens.

    Raises:
        SettingsError: It cannot listen there, or no Prefect server is named.
        StoreError: The store cannot be opened.
    """
    settings = config()
    log()
    with _listening(host, port) as listener:
        name, number = listener.getsockname()[:2]
        async with running(settings) as service:
            from prefect_routines.gateway.app import create_app

            address = f"http://{f'[{name}]' if ':' in name else name}:{number}"
            server = _Server(_uvicorn(create_app(service), settings), lambda: started(address), service.watching.close)
            await server.serve([listener])
            await service.finish()


@asynccontextmanager
async def running(settings: Config) -> AsyncIterator[Service]:
    """All that stands behind the application: the store, the sources, the dispatcher."""
    from prefect.settings import get_current_settings

    from prefect_routines.gateway.access import page_key
    from prefect_routines.gateway.dispatcher import Dispatcher
    from prefect_routines.gateway.fire import Deployments
    from prefect_routines.gateway.service import Service
    from prefect_routines.gateway.sources import Sources
    from prefect_routines.notices.sender import Sender
    from prefect_routines.steering.deadlines import look_after
    from prefect_routines.steering.telling import operators_targets
    from prefect_routines.store import Store

    operators_targets()  # a slip of the pen in it is told now, not when somebody waits for a notice
    prefect = get_current_settings()
    if prefect.api.url is None:
        raise SettingsError("the gateway needs a Prefect server: start one with `prefect server start` and set PREFECT_API_URL")
    key = settings.gateway_key.get_secret_value() if settings.gateway_key else None
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(await Store.open())
        sources = await stack.enter_async_context(Sources(settings.home / "gateway-sources", key))
        dispatcher = await stack.enter_async_context(Dispatcher(store, sources.identities))
        await stack.enter_async_context(Sender(store))
        caring = asyncio.create_task(look_after(store, logging.getLogger(__name__)), name="forms")
        stack.callback(caring.cancel)
        ui = prefect.ui_url or prefect.api.url.removesuffix("/api")
        bounds, cookies = limits(settings), page_key(settings.home)
        service = Service(store, sources, Deployments(), dispatcher.wake, bounds, settings.gateway_url, ui, page_key=cookies)
        await service.slack_apps.look()  # who clicks first is not kept waiting for it
        yield service


def limits(settings: Config) -> Limits:
    """The limits that the environment sets."""
    return Limits(
        body=settings.gateway_max_body,
        seconds=settings.gateway_body_seconds,
        idle=min(10.0, settings.gateway_body_seconds),
        concurrent=settings.gateway_concurrency,
        failures=settings.gateway_failures_per_minute,
        fires=settings.gateway_fires_per_minute,
        streams=settings.gateway_streams,
    )


def _uvicorn(app: Any, settings: Config) -> uvicorn.Config:
    protocol = type("Protocol", (_Protocol,), {"seconds": min(10.0, settings.gateway_body_seconds)})
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=2 * MOST_HEADERS,
        limit_concurrency=settings.gateway_concurrency * 5,  # connections; requests are bounded in the application
        backlog=1024,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=_GRACE,
        proxy_headers=True,
        forwarded_allow_ips=settings.gateway_forwarded_from,
    )


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(kind, socket.SOCK_STREAM)
    except OSError as error:
        raise SettingsError(f"the gateway cannot listen on {host}: {error.strerror}; give another address with --host") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise SettingsError(f"the gateway cannot listen on {host}:{port}: {error.strerror}; give another with --port") from error
        yield listener


class _WithoutSecrets(logging.Formatter):
    """Whatever is logged: what has the shape of a token is left out, what acts on a terminal is shown."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(SECRET.sub("[secret]", super().format(record)))


def log() -> None:
    """One line per request and per event, on stderr, also when Prefect has set up logging in its own way."""
    handler = logging.StreamHandler()
    handler.setFormatter(_WithoutSecrets("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("prefect_routines")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
