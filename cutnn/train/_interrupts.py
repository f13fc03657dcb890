"""Ctrl-C, held back while a step is made, so that no step is made by half."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Whole:
    """`with whole:` is a block that Ctrl-C does not break: it comes at the block's end, and elsewhere at once.

    So it is inside `whole.listening()`, in the main thread, where nobody else handles Ctrl-C. `broken` says whether
    the last block ended in an error.
    """

    def __init__(self) -> None:
        self.broken = False
        self._inside = False
        self._came = False

    def __enter__(self) -> None:
        self._inside = True

    def __exit__(self, error: Any, *rest: Any) -> None:
        self._inside = False
        self.broken = error is not None
        if self._came and not self.broken:
            self._came = False
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C over from Python's own handler, which is put back at the end."""
        main = threading.current_thread() is threading.main_thread()
        if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return

        def handle(*_: Any) -> None:
            if not self._inside:
                raise KeyboardInterrupt
            self._came = True

        signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
