"""The room is there as `ct.testing`, and costs nothing to those who do not ask for it."""

from __future__ import annotations

import subprocess
import sys


def test_importing_cutnn_does_not_read_the_laws() -> None:
    code = (
        "import sys, cutnn as ct\n"
        "assert not [name for name in sys.modules if name.startswith(('cutnn.testing', 'hypothesis'))]\n"
        "assert 'testing' in ct.__all__ and ct.testing.LAWS\n"
        "try:\n    ct.nothing\n"
        "except AttributeError as error:\n    assert 'nothing' in str(error)\n"
        "else:\n    raise SystemExit('no AttributeError')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
