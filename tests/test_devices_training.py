"""What a GPU would not forgive in training, shown without one, as in tests/test_devices.py."""

import contextlib
from dataclasses import replace
import pytest
import torch
from torch.overrides import TorchFunctionMode
from test_devices import Autocast, Dispatched
from logocap.losses import total_loss
from logocap.training import (
    PRESETS,
    DrawnSamples,
    FirstFault,
    TrainingStep,
    collate,
    one_step,
    start_model,
    train,
)

WIDTHS = dict(width=4, c1=8, c2=16, c3=4, cmp_widths=(16, 12, 8), k=4)
RECIPE = replace(PRESETS['people'], widths=WIDTHS, size=64, batch_size=2)


class Waits(TorchFunctionMode):
    "Answers the question how many instances are sent, which the meta device cannot, and counts it."

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not torch.Tensor.nonzero:
            return func(*args, **(kwargs or {}))
        self.count += 1
        return tuple(
            torch.zeros(3, dtype=torch.long, device=args[0].device) for _ in args[0].shape
        )


class Casting(Autocast):
    "What `torch.autocast` does, and where: the meta device has none of its own."

    on = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if self.on:
            return super().__torch_function__(func, types, args, kwargs)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def autocast(device, dtype=None, enabled=True):
    "Stands for `torch.autocast`."
    before, Casting.on = Casting.on, enabled
    yield
    Casting.on = before


class Kept:
    "An optimizer that does nothing: the real one is PyTorch's."

    def step(self):
        pass

    def zero_grad(self, set_to_none):
        pass


def step_on_meta(recipe, bfloat16=False, watch=contextlib.nullcontext):
    "Losses and network of a training step on a device without numbers, and how often it waited."
    batch = collate([DrawnSamples(RECIPE, seed=5)[0, n, 0.0] for n in range(2)])
    batch = {name: values.to('meta') for name, values in batch.items()}
    model = start_model(recipe, 3, None, 'cpu').to('meta')
    step = TrainingStep(model, recipe, bfloat16).to('meta')
    waits = Waits()
    with pytest.MonkeyPatch.context() as patch, watch(), waits, Casting():
        patch.setattr(torch, 'autocast', autocast)
        losses = one_step(step, Kept(), batch, torch.device('meta'))
        FirstFault(torch.device('meta')).note(1, losses)
    return losses, model, waits.count


@pytest.mark.parametrize(
    'variant, adaptation, bfloat16',
    (
        ('released', True, False),
        ('released', True, True),
        ('paper', True, True),
        ('released', False, True),
    ),
)
def test_a_step_waits_once(variant, adaptation, bfloat16):
    "No devices are mixed; the number of sent instances is all that is asked of the device."
    recipe = replace(RECIPE, variant=variant, adaptation=adaptation)
    losses, model, waits = step_on_meta(recipe, bfloat16)
    assert waits == adaptation
    assert all(loss.is_meta for loss in losses.values())
    learning = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad.is_meta and p.grad.dtype == torch.float32 for p in learning)


def test_nothing_of_float64_and_no_images_brought():
    "The step itself runs on the device; what it brings along is the skeleton's σ."

    class Watched(Dispatched):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if all(t.numel() <= 17 for t in args if isinstance(t, torch.Tensor) and not t.is_meta):
                out = func(*args, **(kwargs or {}))
                tensors = [t for t in (*args, out) if isinstance(t, torch.Tensor)]
                assert all(t.dtype != torch.float64 for t in tensors), func
                return out
            return super().__torch_dispatch__(func, types, args, kwargs)

    step_on_meta(RECIPE, watch=Watched)


def test_a_fault_is_found_when_something_is_written(tmp_path, monkeypatch):
    "As on a GPU, where only log lines and checkpoints wait: the step is named, nothing is saved."
    calls = []

    def spoilt(*args):
        found = total_loss(*args)
        calls.append(1)
        if len(calls) == 3:
            found.update(offsets=found['offsets'] + torch.inf, total=found['total'] + torch.inf)
        return found

    class Late(FirstFault):
        "Asked at every step on a CPU; here as seldom as on a GPU."

        def check(self, names):
            if len(calls) % 5 == 0:
                super().check(names)

    monkeypatch.setattr('logocap.training.total_loss', spoilt)
    monkeypatch.setattr('logocap.training.FirstFault', Late)
    samples = DrawnSamples(RECIPE, seed=5, length=64)
    with pytest.raises(ValueError, match='step 3: the loss offsets is inf on drawn image'):
        train(samples, RECIPE, tmp_path, 8, seed=5, device='cpu', save_every=5, log_every=5)
    assert len(calls) == 5 and not (tmp_path / 'checkpoint.pt').exists()

