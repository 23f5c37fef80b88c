"""The modality of another package is there while the adapters of its base are tested."""

from collections.abc import Iterator

import pytest

from onebase.modality import media
from onebase.modality.kinds import CODECS


@pytest.fixture(autouse=True)
def _plug_in() -> Iterator[None]:
    from tests.contract.plugin.series import KIND

    media.register(KIND)
    yield
    media.MEDIA.pop(KIND.name, None)
    CODECS.pop(KIND.codec, None)
