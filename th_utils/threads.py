"""How many threads a kernel uses, where that is not for the caller to say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Run LAPACK on many small matrices with one thread; also usable as a decorator.

    A decomposition of 64 x 64 is over before a second thread has joined: on a machine that does
    something else besides, waiting for that thread made the SVD of a whole model twenty times
    slower. The caller's number of threads is put back afterwards.

    >>> before = torch.get_num_threads()
    >>> with one_thread():
    ...     inside = torch.get_num_threads()
    >>> inside, torch.get_num_threads() == before
    (1, True)
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
