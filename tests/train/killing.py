"""Runs that are killed and go on, for the tests of resuming: processes that end without a word, in one process."""

import pytest

from cutnn import optim
from tests.train.tiny import assert_same, made_data, made_net, made_set, run

STEPS = 8  # of an epoch: 120 images in batches of 16


class Killed(BaseException):
    """What ends a run at once, with nothing written after it."""


class Deadly:
    """A split that raises at its batch number `at`, counted from 1, the trial included."""

    def __init__(self, split, at, error=Killed):
        self.split, self.at, self.error, self.asked, self.visits = split, at, error, 0, []
        self.labels = split.labels

    def __len__(self):
        return len(self.split)

    def batch(self, indices, *dtype):
        self.asked += 1
        if self.asked == self.at:
            raise self.error
        self.visits.append(list(indices))
        return self.split.batch(indices, *dtype)


def deadly_set(at, error=Killed, validation="made"):
    return made_set(Deadly(made_data(), at, error), validation)


def started(build, **options):
    model, optimizer = build()
    return run(model, optimizer=optimizer, **options)


def killed(build, folder, *batches, **options):
    """Runs that go on from one another and are killed, each when it asks for a batch of that number."""
    for at in batches:
        with pytest.raises(Killed):
            started(build, dataset=deadly_set(at), checkpoint=folder, resume=True, **options)


def resumed(build, folder, **options):
    return started(build, checkpoint=folder, resume=True, **options)


def assert_same_run(result, whole):
    assert result.history.columns == whole.history.columns
    for column in whole.history.columns:
        if column != "seconds":
            assert result.history[column] == whole.history[column], column
    assert (result.best_epoch, result.stopped) == (whole.best_epoch, whole.stopped)
    assert_same(result.model, whole.model)
    assert_same(result.final, whole.final)


def with_adam(make, lr=1e-2, **options):
    def build():
        model = make()
        return model, optim.Adam(model, lr=lr, **options)

    return build


def with_momentum(make, **options):
    def build():
        model = make()
        return model, optim.SGD(model, lr=0.1, momentum=0.9, **options)

    return build


BUILD = with_adam(made_net)
