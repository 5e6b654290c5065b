"""What holds for every test: nothing is read from, or left in, the data folder of whoever runs them."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUIVER_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield
