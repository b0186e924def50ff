"""What tests of several rooms share."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from object_store import ObjectStore, object_store

from vlm_rewards.schemas.files import stores


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A real object store, which runs until the tests end."""
    with object_store(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def bucket(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """URL of a folder in the store that nothing is in, which this process may write to."""
    connect(monkeypatch, store.owner)
    yield f"s3://bucket/{tmp_path.name}-{tmp_path.parent.name}"
    forget_connections()


def connect(monkeypatch: pytest.MonkeyPatch, client: dict[str, str]) -> None:
    """Makes this process a client of a store."""
    for name, value in client.items():
        monkeypatch.setenv(name, value)
    forget_connections()


def forget_connections() -> None:
    """Lets the next use of a store read the environment anew."""
    stores._stores.clear()
    fsspec.get_filesystem_class("s3").clear_instance_cache()
