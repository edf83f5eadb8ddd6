"Numbers at the edge: finite poses or nobody; and what flipping, shifting and batching may change."

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from conftest import LONG, ROOT
from logocap.center_offset import (
    example_fields,
    suppress_duplicates,
    unflip_heatmaps,
    unflip_offsets,
)
from logocap.keypoints import FLIP, example_people, people_tensors
from logocap.images import read_image
from logocap.model import LEVELS, LogoCap
from logocap.predict import detect

PART = 'numbers'
SIZE = 192, 256  # H, W of the network input, px
quiet = dict(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope='module')
def model(tiny):
    return LogoCap.from_pretrained(tiny)


@pytest.fixture(scope='module')
def people():
    "The three people in the middle of the input, half their size."
    return people_tensors(example_people()['annotations'])[0] * torch.tensor(
        [0.4, 0.4, 1.0]
    ) + torch.tensor([64.0, 44.0, 0.0])


def fields(people):
    heat, offsets = example_fields(people, SIZE)
    torch.manual_seed(0)
    return heat[None], offsets[None], torch.randn(1, 4, SIZE[0] // 4, SIZE[1] // 4)


def read(model, maps, level):
    with torch.inference_mode():
        stages = model.slow_keypointer(model.fast_keypointer(*maps, SIZE))
        return dict(stages, **model.at_level(stages, level))


def zero(h, o, e):
    return h * 0, o, e


def equal(h, o, e):
    return torch.full_like(h, 0.5), o, e


def border(h, o, e):
    "Peaks in the corners, arrows that point at the border and beyond."
    h = h * 0
    h[:, :, 0, 0] = h[:, :, -1, -1] = h[:, :, 0, -1] = 1
    return h, torch.where(torch.arange(34).view(1, 34, 1, 1) % 3 == 0, 0.0, o.sign() * 1e4), e


def exactly_zero(h, o, e):
    return torch.cat([h[:, :17] * 0, h[:, 17:]], 1), o, e


def one_person(h, o, e):
    "Thirty peaks of equal height, all of whose arrows lead to the same keypoints."
    y, x = torch.meshgrid(torch.arange(h.shape[2]), torch.arange(h.shape[3]), indexing='ij')
    peaks = (x % 8 == 4) & (y % 8 == 4)
    own = torch.stack([x, y]).float().repeat(17, 1, 1) - torch.arange(34).view(34, 1, 1) - 10
    return torch.cat([h[:, :17], peaks[None, None].float()], 1), own[None], e


def negative(h, o, e):
    return h - 10, o, e


def huge(h, o, e):
    return h * 1e30, o, e


def far(h, o, e):
    return h, o * 1e6, e


@pytest.mark.parametrize(
    'spoil',
    (zero, equal, border, exactly_zero, one_person, negative, huge, far),
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16), ids=('float32', 'bfloat16'))
def test_edges(spoil, dtype, model, people, tried):
    import copy

    network = copy.deepcopy(model).to(dtype)
    maps = tuple(t.to(dtype) for t in spoil(*fields(people)))
    network.fields = lambda images, flip_test=False: maps
    matrix = torch.eye(3)[None, :2]
    for level, found in detect(network, torch.zeros(1, 3, *SIZE), matrix, False, LEVELS).items():
        keypoints, scores = found[0]
        assert np.isfinite(keypoints).all(), level
        assert np.isfinite(scores).all(), level
        assert (scores > 0).all(), level
        if spoil in (zero, negative) or spoil is exactly_zero and level != 'partial':
            assert len(scores) == 0, level
        if spoil is one_person and level == 'none':
            assert len(scores) == 1
        tried(
            PART,
            'empty, equal, negative, huge and far maps, borders, scores of 0, one person thirty '
            'times, in float32 and bfloat16, at three levels',
            1,
            'finite, or nobody',
        )


def test_one_person_thirty_times(people):
    poses = people[:1, :, :2].expand(30, 17, 2)[None]
    for scores in (torch.ones(1, 30), torch.linspace(0.1, 1, 30)[None], torch.zeros(1, 30)):
        assert suppress_duplicates(poses, scores, torch.ones(1, 30, dtype=torch.bool)).sum() == 1


def close(a, b):
    return (
        len(a[1]) == len(b[1])
        and np.allclose(a[1], b[1], rtol=1e-3, atol=1e-6)
        and (np.abs(a[0] - b[0]) < 0.05).all(-1).mean(initial=1 if len(a[1]) == 0 else None) >= 0.97
    )


def test_shift_by_the_stride(model, people, tried):
    """Maps moved by whole cells move poses by four pixels a cell, and change nothing else, while
    everything stays far from the border."""

    @settings(max_examples=60 if LONG else 3, **quiet)
    @given(st.integers(-5, 5), st.integers(-5, 5), st.sampled_from(('none', 'full')))
    def shift(dx, dy, level):
        moved = people + torch.tensor([4.0 * dx, 4.0 * dy, 0])
        a, b = (
            read(model, fields(people), level),
            read(model, (*fields(moved)[:2], fields(people)[2].roll((dy, dx), (2, 3))), level),
        )
        n = len(people)
        assert torch.allclose(a['scores'][0, :n], b['scores'][0, :n], rtol=1e-3, atol=1e-6)
        step = b['poses'][0, :n, :, :2] - a['poses'][0, :n, :, :2]
        assert ((step - torch.tensor([4.0 * dx, 4.0 * dy])).abs() < 0.05).all(
            -1
        ).float().mean() > 0.97
        tried(PART, 'shifts by whole cells', 1, 'poses move along')

    shift()


def test_flip(model, tried):
    """A mirrored picture, mirrored back, with left and right swapped: the same maps, if the flip
    test averages both."""

    @settings(max_examples=60 if LONG else 2, **quiet)
    @given(st.integers(0, 2**31))
    def flip(seed):
        torch.manual_seed(seed)
        images = torch.randn(1, 3, 64, 96)
        with torch.inference_mode():
            (h, o, _), (hm, om, _) = (
                model.fields(x, flip_test=True) for x in (images, images.flip(-1))
            )
        assert torch.allclose(unflip_heatmaps(hm), h, rtol=1e-3, atol=1e-5)
        assert torch.allclose(unflip_offsets(om), o, rtol=1e-3, atol=1e-4)
        tried(PART, 'mirrored pictures', 1, 'the mirrored maps')

    flip()
    assert [FLIP[k] for k in FLIP] == list(range(17))


@pytest.fixture(scope='module')
def drawn():
    "Drawn people, four pictures of one size, and the weights that find them."
    return LogoCap.from_pretrained(), [
        read_image(f)
        for f in sorted((ROOT / 'data/people/val').iterdir())
        if Image.open(f).size == (320, 256)
    ][: 12 if LONG else 4]


def near(found, others):
    """How many people score half as much as the best, and whether each is among the others, within
    half a pixel and 1 % of the score."""
    sure = [(p, s) for p, s in zip(found.keypoints, found.scores) if s > 0.5 * found.scores[0]]
    return len(sure), all(
        any(
            np.abs(p - q)[:, :2].max() < 0.5 and abs(s - r) < 0.01 * s
            for q, r in zip(others.keypoints, others.scores)
        )
        for p, s in sure
    )


def test_mirrored_people(drawn, tried):
    """The people of a mirrored picture are the mirrored people. (Of initial poses only: the flip
    test leaves the embedding as it is.)"""
    model, pictures = drawn
    for picture in pictures:
        a, b = (
            model.predict(np.ascontiguousarray(p), level='none')
            for p in (picture, picture[:, ::-1])
        )
        b.keypoints = b.keypoints[:, list(FLIP)] * (-1, 1, 1) + (picture.shape[1] - 1, 0, 0)
        for count, same in (near(a, b), near(b, a)):
            assert count and same
        tried(PART, 'mirrored pictures of drawn people', 1, 'the mirrored people')


def test_people_in_batches(drawn, tried):
    "A picture alone and among others: the same people."
    model, pictures = drawn
    for level in LEVELS:
        for alone, among in zip(
            [model.predict(p, flip_test=False, level=level) for p in pictures],
            model.predict(pictures, flip_test=False, level=level, batch_size=4),
        ):
            for count, same in (near(alone, among), near(among, alone)):
                assert count and same
            tried(
                PART,
                'pictures of drawn people in batches of four',
                1,
                'the people of each picture alone',
            )
