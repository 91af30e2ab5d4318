"""An async context manager that is made of others: it acquires all of them, or none."""

from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self


class Acquired(ABC):
    """Enters what `_acquire` enters, and leaves it in the reverse order, also if one fails."""

    _acquired: AsyncExitStack

    @abstractmethod
    async def _acquire(self, acquired: AsyncExitStack) -> None:
        """Enter everything that this needs in `acquired`."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as acquired:
            await self._acquire(acquired)
            self._acquired = acquired.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._acquired.__aexit__(kind, error, traceback)
