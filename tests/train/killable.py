"""A small run for `test_kill.py`, to be made in a process of its own."""

import hashlib
import json
import warnings

from cutnn import nn, optim
from tests.train.tiny import arrays, made_time_net, run

EPOCHS = 12


def main(folder, pipe):
    """Train, going on from what lies in the folder; say when it begins, and a digest of all it ends with."""
    warnings.simplefilter("error")
    model = made_time_net()
    optimizer = optim.AdamW(model, lr=optim.warmup(optim.cosine(2e-2, EPOCHS * 8), 5), clip=1.0)
    pipe.send("begins")
    result = run(
        model,
        optimizer=optimizer,
        epochs=EPOCHS,
        regularizer=nn.Smoothness(1e-3),
        refine={4: 2},
        checkpoint=folder,
        resume=True,
        save_every=0,
    )
    digest = hashlib.sha256()
    for array in (*arrays(result.model), *arrays(result.final)):
        digest.update(array.tobytes())
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in result.history]
    digest.update(json.dumps([rows, result.best_epoch]).encode())
    pipe.send(digest.hexdigest())
