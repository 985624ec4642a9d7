"""Pictures that several tests of synthetic faces share."""

import pytest
from portraits import portrait_of


@pytest.fixture(scope="session")
def portraits():
    """Portraits of several people."""
    return [portrait_of(number, size=192) for number in range(6)]
