"""Run by torchrun in test_training.py.

The gradients of two processes are the mean of what each has alone.
"""

import copy
from dataclasses import replace
import torch
from logocap.training import (
    PRESETS,
    DrawnSamples,
    Processes,
    TrainingStep,
    collate,
    one_step,
    start_model,
)

widths = dict(width=4, c1=8, c2=16, c3=4, cmp_widths=(16, 12, 8), k=4)
recipe = replace(PRESETS['people'], widths=widths, size=128, batch_size=2)
samples = DrawnSamples(recipe, seed=5, length=64)
procs = Processes('cpu')
assert procs.world == 2


some_data = collate([samples[0, n, 0.0] for n in range(4)])
seasoned = start_model(recipe, 3, None, 'cpu')
with torch.no_grad():
    for _ in range(20):
        TrainingStep(seasoned, recipe)(some_data)


def gradients(batch, parallel):
    "Gradients of a step with the batch norms held still, after they have seen some data."
    model = copy.deepcopy(seasoned)
    step = TrainingStep(model, recipe).eval()
    kept = {}

    class Keep:
        def step(self):
            kept.update({n: p.grad.clone() for n, p in model.named_parameters()})

        def zero_grad(self, set_to_none):
            pass

    one_step(procs.share(step) if parallel else step, Keep(), batch, 'cpu')
    return kept


batches = [collate([samples[0, n, 0.0] for n in picked]) for picked in ((0, 5), (1, 9))]
counts = [batch['valid'].sum() for batch in batches]
assert counts[0] != counts[1], 'the two should differ in people: each divides by its own count'
ours = gradients(batches[procs.rank], True)
alone = [gradients(batch, False) for batch in batches]
largest = max(g.abs().max() for g in alone[0].values())
assert set(ours) == set(alone[0]) and largest > 0
for name in ours:
    mean = (alone[0][name] + alone[1][name]) / 2
    assert (ours[name] - mean).abs().max() < 1e-4 * largest + 1e-3 * mean.abs().max(), name
procs.close()
if procs.rank == 0:
    print('equal')
