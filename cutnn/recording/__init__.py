"""Captured steps: a training step recorded once, and replayed without tape, pytrees and allocation.

`capture` is the public function. `_recorder` writes down what NumPy does while a step runs, `_program` finds memory for
it and replays it, `_cuda` does the same by a CUDA graph. Rooms below reach a recording by `device.lifted`,
`device.record_call`, `device.opaque` and `device.holds` alone.
"""

from cutnn.recording._arrays import CaptureError
from cutnn.recording._capture import Captured, capture

__all__ = ["CaptureError", "Captured", "capture"]
