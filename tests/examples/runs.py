"""What the tests of the examples share: the tables of a run, and an interrupt at a chosen moment, or a real one."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def results(path):
    """The table without its times, which no two runs share."""
    return [{k: v for k, v in row.items() if k != "seconds_per_epoch"} for row in rows(path)]


def interrupt(*args, **options):
    raise KeyboardInterrupt


def interrupted(script, *options):
    """What a run of a script printed that got Ctrl-C a second after its first line, that line, and its status.

    It heeds SIGINT also where the tests were started in the background of a shell, which ignores it.
    """
    with subprocess.Popen(
        [sys.executable, "-u", script, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            first = process.stdout.readline()
            time.sleep(1.0)
            process.send_signal(signal.SIGINT)
            return process.communicate(timeout=60)[0], first, process.returncode
        finally:
            process.kill()
