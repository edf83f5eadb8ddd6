"Run by torchrun in test_training.py: two processes have the gradients of one with twice the batch."
from dataclasses import replace
import torch
from logocap.training import PRESETS, DrawnSamples, Processes, TrainingStep, collate, one_step, start_model

recipe = replace(PRESETS['people'], widths=dict(width=4, c1=8, c2=16, c3=4, cmp_widths=(16, 12, 8), k=4), size=128, batch_size=2)
samples = DrawnSamples(recipe, seed=5, length=64)
procs = Processes('cpu')
assert procs.world == 2


def gradients(batch, across, parallel):
    "Gradients of a step with the batch norms held still, after they have seen some data."
    model = start_model(recipe, 3, None, 'cpu')
    step = TrainingStep(model, recipe, across=across)
    with torch.no_grad():
        for _ in range(20): TrainingStep(model, recipe)(collate([samples[0, n, 0.] for n in range(4)]))
    step.eval()
    module = procs.share(step) if parallel else step
    kept = {}

    class Keep:
        def step(self): kept.update({n: p.grad.clone() for n, p in model.named_parameters()})
        def zero_grad(self, set_to_none): pass
    one_step(module, Keep(), batch, 'cpu')
    return kept


picked = [0, 1, 5, 9]
ours = gradients(collate([samples[0, n, 0.] for n in picked[procs.rank::2]]), procs.mean, True)
whole = gradients(collate([samples[0, n, 0.] for n in picked]), None, False)
counts = torch.tensor([len(samples[0, n, 0.]['people']) for n in picked[procs.rank::2]]).sum()
both = [torch.zeros_like(counts) for _ in range(2)]
torch.distributed.all_gather(both, counts)
assert both[0] != both[1], 'the two halves should differ in people, or dividing by the own count would do as well'
largest = max(g.abs().max() for g in whole.values())
assert set(ours) == set(whole) and largest > 0
for name in whole: assert (ours[name] - whole[name]).abs().max() < 1e-4 * largest + 1e-3 * whole[name].abs().max(), name
procs.close()
if procs.rank == 0: print('equal')
