"""A small run for `test_kill.py`, a process of its own: `python -m tests.train.killable FOLDER`.

It says when it begins, goes on from what lies in the folder, and prints a digest of what it ends with.
"""

import hashlib
import json
import sys

from cutnn import nn, optim
from tests.train.tiny import arrays, made_time_net, run

EPOCHS = 12


def main(folder):
    model = made_time_net()
    optimizer = optim.AdamW(model, lr=optim.warmup(optim.cosine(2e-2, EPOCHS * 8), 5), clip=1.0)
    print("begins", flush=True)
    result = run(
        model,
        optimizer=optimizer,
        epochs=EPOCHS,
        regularizer=nn.Smoothness(1e-3),
        refine={4: 2},
        checkpoint=folder,
        resume=True,
        save_every=0.02,
    )
    digest = hashlib.sha256()
    for array in (*arrays(result.model), *arrays(result.final)):
        digest.update(array.tobytes())
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in result.history]
    digest.update(json.dumps([rows, result.best_epoch]).encode())
    print(digest.hexdigest())


if __name__ == "__main__":
    main(sys.argv[1])
