"""A run whose process is killed twenty times, wherever it happens to be, ends with the bits of one never killed."""

import multiprocessing
import pathlib
import signal
import time

import numpy as np
import pytest

from tests.train import killable

KILLS = 20


class Life:
    """A process that makes the run of `killable`, from its beginning on."""

    def __init__(self, processes, folder):
        self.pipe, theirs = processes.Pipe(duplex=False)
        self.process = processes.Process(target=killable.main, args=(folder, theirs))
        self.process.start()
        theirs.close()
        assert self.pipe.recv() == "begins"

    def end(self):
        """What the run ends with; None where it was killed."""
        self.process.join()
        assert self.process.exitcode in (0, -signal.SIGKILL)
        return self.pipe.recv() if self.process.exitcode == 0 else None


@pytest.fixture
def processes(monkeypatch):
    """Processes forked from one that has all imports made and no thread."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("processes cannot be forked here")
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(__file__).parents[2]))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([killable.__name__])
    return context


@pytest.mark.slow
def test_twenty_kills_change_no_bit(processes, tmp_path):
    life, began = Life(processes, tmp_path / "whole"), time.monotonic()
    whole = life.end()
    longest = (time.monotonic() - began) / 2
    assert whole and Life(processes, tmp_path / "whole").end() == whole  # read back
    rng, kills, runs, going = np.random.default_rng(0), 0, 0, True
    while going:  # until a run ends that nobody killed any more
        life, going = Life(processes, tmp_path / str(runs)), kills < KILLS
        if going:
            time.sleep(rng.uniform(0, longest))
            life.process.kill()
        end = life.end()
        assert end in (None, whole)
        kills += end is None
        runs += end is not None
    assert kills == KILLS
