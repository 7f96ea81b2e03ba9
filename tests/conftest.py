import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# So that an `import tripletloss` in these tests means this repository, whatever is installed.
sys.path.insert(0, str(ROOT))


@pytest.fixture(scope="session")
def root():
    return ROOT
