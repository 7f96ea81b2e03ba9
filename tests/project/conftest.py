import pytest
from checkout import copy_of


@pytest.fixture
def copy(root, tmp_path):
    return copy_of(root, tmp_path / root.name)
