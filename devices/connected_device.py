"""What devices and desks have in common: one connection, and parts that live as long as it does."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Self

from devices.device_connection import DeviceConnection


class ConnectedDevice:
    """A device or desk, connected while the `async with` lasts.

    A subclass sets `_connection` and `_parts`, which are entered in this order; the connection is
    one of them.
    """

    _connection: DeviceConnection
    _parts: Sequence[AbstractAsyncContextManager[Any]]
    _entered: AsyncExitStack

    @property
    def connected(self) -> bool:
        """Whether it is connected now."""
        return self._connection.connected

    @property
    def connections(self) -> int:
        """How often it has connected: 1 after entering."""
        return self._connection.connections

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as entered:
            for part in self._parts:
                await entered.enter_async_context(part)
            self._entered = entered.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._entered.__aexit__(kind, error, traceback)
