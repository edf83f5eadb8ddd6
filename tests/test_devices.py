"""What a GPU would not forgive, shown without one.

Tensors on PyTorch's meta device have a shape, a type and no numbers. So it stands for a GPU here:
operations that mix devices fail, and so do those that want to know a number.
"""

import contextlib
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from logocap.checkpoints import Unfilled
from logocap.model import ABLATIONS, LEVELS, LogoCap

WIDTHS = 4, 8, 8, 4, (12, 10, 8), 3


class Called(TorchFunctionMode):
    "Fails where numbers of the program would be copied to the device."

    def __torch_function__(self, func, types, args=(), kwargs=None):
        copied = func in (torch.tensor, torch.as_tensor, torch.from_numpy)
        if func is torch.Tensor.__getitem__:
            copied = any(isinstance(part, list) for part in tree_leaves(args[1], is_leaf=is_list))
        assert not copied, f'{func} copies numbers'
        return func(*args, **(kwargs or {}))


def is_list(part):
    return isinstance(part, list)


class Dispatched(TorchDispatchMode):
    "Fails where a tensor is not on the device, or is of float64."

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, out)):
            if isinstance(tensor, torch.Tensor):
                assert tensor.device.type == 'meta', f'{func} crosses'
                assert tensor.dtype != torch.float64, f'{func} of float64'
        return out


@contextlib.contextmanager
def watched():
    with Dispatched(), Called():
        yield


def pretended(dtype=None):
    "A network on a device that is none, arranged for it where a type is named."
    with torch.device('meta'), Unfilled():
        model = LogoCap(*WIDTHS).eval()
    return model if dtype is None else model.optimize(dtype)


def batch():
    pixels = torch.zeros(2, 3, 64, 96, dtype=torch.uint8, device='meta')
    return pixels, torch.zeros(2, 2, 3, device='meta')


def test_the_watch_sees():
    "What it is there for: numbers from the processor, questions, mixtures, float64."
    maps = torch.zeros(2, 3, device='meta')
    wrong = (
        lambda: maps[:, [0, 2]],
        lambda: torch.tensor([1.0], device='meta'),
        lambda: maps.sum().item(),
        lambda: maps + torch.zeros(3),
        lambda: maps.double(),
        lambda: maps.cpu(),
    )
    for operation in wrong:
        with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), watched():
            operation()
    with watched():
        maps[:, :2] + 1


@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16))
@pytest.mark.parametrize('flip_test', (False, True))
def test_nothing_is_asked_of_the_device(flip_test, dtype):
    "From pixels to people: no number is asked for, none brought."
    network = pretended(dtype)
    levels = (*LEVELS, *ABLATIONS)
    with torch.inference_mode(), watched():
        people = network.to_people(*batch(), flip_test, levels)
    assert people.shape == (len(levels), 2, 30, 53) and people.is_meta


@pytest.mark.parametrize('flip_test', (False, True))
def test_the_readable_network(flip_test):
    "It may bring fixed numbers along, but mixes no devices and asks for none."
    with torch.inference_mode():
        people = pretended().to_people(*batch(), flip_test, LEVELS)
    assert people.is_meta


class Autocast(TorchFunctionMode):
    "What `torch.autocast` does to products and convolutions; the meta device has none of its own."

    PRODUCTS = F.conv2d, F.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__
    PRODUCTS += torch.baddbmm, torch.bmm

    def __torch_function__(self, func, types, args=(), kwargs=None):
        def low(value):
            is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
            return value.bfloat16() if is_float else value

        if func in self.PRODUCTS:
            args, kwargs = tree_map(low, (args, kwargs))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('dtype', (None, torch.float32))
def test_under_autocast(dtype):
    "Convolutions in bfloat16: neither types nor devices are mixed; places are of float32."
    with torch.inference_mode(), Autocast():
        people = pretended(dtype).to_people(*batch(), True, LEVELS)
    assert people.dtype == torch.float32 and people.is_meta
