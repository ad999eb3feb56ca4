from __future__ import annotations

import pytest

from autopush.tests.session.support import Rig


@pytest.fixture
def rig():
    """A node and what is around it."""
    return Rig()
