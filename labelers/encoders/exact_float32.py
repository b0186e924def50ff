"""Context manager that disables TF32 and reduced-precision matmuls and convolutions."""

import contextlib
import threading
from collections.abc import Iterator

import torch


class _ExactFloat32:
    """Keeps float32 from being rounded inside products and convolutions, to TF32 or bfloat16, while any thread is within.

    The switches for that belong to the process, and programs that train turn them: the first thread in turns them off, the last
    one out turns them back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._switches = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._threads == 0:
                exact = {"benchmark": False, "deterministic": True, "allow_tf32": False}
                self._switches.enter_context(torch.backends.cudnn.flags(enabled=True, **exact))
                self._switches.enter_context(_exact_products())
            self._threads += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads -= 1
            if self._threads == 0:
                self._switches.close()


EXACT_FLOAT32 = _ExactFloat32()
"""The one of this process: `with EXACT_FLOAT32:`."""


@contextlib.contextmanager
def _exact_products() -> Iterator[None]:
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # turned by torch's newer switches, of which the older function will not speak
        products = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
        before = [product.fp32_precision for product in products]
        for product in products:
            product.fp32_precision = "ieee"
        try:
            yield
        finally:
            for product, value in zip(products, before, strict=True):
                product.fp32_precision = value
        return
    if precision == "highest":  # nothing to turn, and nothing to leave behind
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
