"""`check`: what tests of derivatives call; `check_gradient` of `cutnn.testing` to the second order."""

from __future__ import annotations

import functools

from cutnn.testing import check_gradient

check = functools.partial(check_gradient, order=2, rtol=2e-6)
