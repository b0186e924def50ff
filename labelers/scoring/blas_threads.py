"""One BLAS thread for the matrix products of scoring, whatever the process uses otherwise.

A block of scores is a small product, and two threads lose on it: on two cores, [64, 256] by [256, 343] in float64 took 0.4 ms of
CPU time with one thread and 12 ms with two, most of it spent waiting busily. Products by one and by two threads may also differ in
the last bit of float64.
"""

import contextlib
import functools

from threadpoolctl import ThreadpoolController


def one_blas_thread() -> contextlib.AbstractContextManager[object]:
    """Context manager that limits NumPy's BLAS to one thread, and then restores what was before."""
    return _controller().limit(limits=1)


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")
