"""A run whose process is killed twenty times, wherever it happens to be, ends with the bits of one never killed."""

import os
import pathlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
KILLS = 20


def started(folder):
    """The process of a run, once it has begun."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.train.killable", str(folder)],
        cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begins\n", process.communicate()
    return process


def finished(process):
    """The digest of what a run ends with, and that it said nothing else."""
    digest, errors = process.communicate()
    assert process.returncode == 0 and errors == ""
    return digest


def killed(folder, kills, seed, longest):
    """The digests of runs that were killed so many times altogether, each going on until it ends."""
    rng, digests, made = np.random.default_rng(seed), [], 0
    while True:
        process = started(folder / str(len(digests)))
        if made < kills:
            time.sleep(rng.uniform(0, longest))
            process.kill()
        digest, errors = process.communicate()
        assert errors == ""
        if process.returncode == 0:  # it was quicker
            digests.append(digest)
            if made == kills:
                return digests
        else:
            made += 1


@pytest.mark.slow
def test_twenty_kills_change_no_bit(tmp_path):
    process, began = started(tmp_path / "whole"), time.monotonic()
    whole = finished(process)
    longest = (time.monotonic() - began) / 2
    assert finished(started(tmp_path / "whole")) == whole  # read back
    with ThreadPoolExecutor() as pool:
        halves = [pool.submit(killed, tmp_path / str(seed), KILLS // 2, seed, longest) for seed in range(2)]
        digests = [digest for half in halves for digest in half.result()]
    assert set(digests) == {whole}
