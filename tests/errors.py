"""What an error says, from its first to its last character."""

import re

import pytest


def raises(kind, message):
    """The code inside must end with an error of this kind (or one of these kinds) and just this message."""
    return pytest.raises(kind, match=f"^{re.escape(message)}$")
