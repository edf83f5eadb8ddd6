"""The fast network against the readable one. Times are measured by `logocap-speed`; no test
depends on them."""

import copy
import json
import pickle
import numpy as np
import pytest
import torch
from agreement import ap_scatter, oks_changes, same_centers, same_people, ties_allowed
from conftest import SHARED
import logocap.predict
from logocap.adaptation import attract, reweigh
from logocap.center_offset import suppress_duplicates
from logocap.images import network_input
from logocap.kem import global_kem, global_mesh
from logocap.coco import CocoFolder, average_precision
from logocap.model import ABLATIONS, LEVELS, LogoCap, busiest, middle
from logocap.checkpoints import load_network
from logocap.predict import detect, detect_split, stream_poses
from logocap.tables import Scales, own_data

CASES = SHARED / 'parity' / 'cases.json'
cases = json.loads(CASES.read_text()) if CASES.is_file() else []
PICTURES = 12


@pytest.fixture(scope='module')
def drawn():
    "Network inputs of drawn people, of one size."
    folder = CocoFolder(own_data('people'), 'val')
    ids = [
        i
        for i in folder.image_ids()
        if (folder.coco.imgs[i]['width'], folder.coco.imgs[i]['height']) == (256, 256)
    ][:PICTURES]
    inputs = [network_input(folder.image_path(i), 256) for i in ids]
    return torch.stack([x for x, _ in inputs]), torch.stack([m for _, m in inputs])


@pytest.fixture(scope='module')
def model():
    return LogoCap.from_pretrained()


@pytest.fixture(scope='module')
def fast(model):
    return model.optimize()


@pytest.fixture(scope='module')
def released(parity):
    return LogoCap.from_pretrained(parity / 'w8.pth.tar').optimize()


def explained(level, kept, initial, at, xy):
    """Whether the reference's own adapted map of one keypoint holds other cells with the values
    that were read out, up to rounding, which lead to the place xy.

    A value's rounding is relative to it where terms of one sign were summed. Where a keypoint lies
    beyond the border its map holds little but the rounding of the heatmaps, which is relative to
    their highest value: both networks upsample by sums over whole maps.
    """
    options = ABLATIONS.get(level, {})
    kem, kam = (kept[name][at][None, None, None] for name in ('kem', 'kam'))
    side = options.get('side', 97)
    if side > 97:
        kem = global_kem(kept['upsampled'], global_mesh(initial, side))[at][None, None, None]
    kem = middle(kem, side)
    if options.get('gaussian', True):
        kem = reweigh(kem)
    values = (attract(kem, kam) if options.get('attracted', True) else kem).flatten()
    size, weight = kem.shape[-1], options.get('weight', 0.75)
    noise = torch.finfo(torch.float32).eps * kept['upsampled'][at[0], at[2]].abs().max()
    first, second = (
        (values - v).abs().le(1e-6 * v.abs() + noise).nonzero()[:, 0] for v in values.topk(2).values
    )
    if options.get('between'):  # the highest cell's place, and half a pixel around it
        near = torch.stack([first % size, first // size], -1) - size // 2 + initial[at]
        return bool((near - xy).abs().amax(-1).le(0.51).any())

    def place(cell):
        return (
            torch.stack([cell % size, cell // size], -1)
            - size // 2
            + initial[at]
            + options.get('shift', 0.0)
        )

    mixed = weight * place(first)[:, None] + (1 - weight) * place(second)
    return bool((mixed - xy).norm(dim=-1)[first[:, None] != second].lt(0.01).any())


@pytest.mark.parametrize('flip_test', (False, True))
def test_drawn_people(model, fast, drawn, flip_test):
    """Every keypoint in its place; or, where the reference's map holds equal values, in a place
    that is just as good."""
    levels, x, made = (*LEVELS, *ABLATIONS), drawn[0], []
    with torch.inference_mode():
        for m in (model, fast):
            stages = busiest(m.fast_keypointer(*m.lean_fields(x, flip_test), x.shape[-2:]))
            stages = m.slow_keypointer(stages)
            made.append(({level: m.at_level(stages, level) for level in levels}, stages))
    (theirs, kept), (ours, _) = made
    for level in levels:
        a, b = theirs[level], ours[level]
        assert torch.equal(a['valid'], b['valid']) and a['valid'].sum() > 30
        assert (a['scores'] - b['scores'])[a['valid']].abs().max() < 1e-4 * a['scores'].max()
        off = (
            (((a['poses'] - b['poses'])[..., :2].norm(dim=-1) >= 0.01) & a['valid'][..., None])
            .nonzero()
            .tolist()
        )
        for at in map(tuple, off):
            assert level not in ('none', 'partial'), (level, at)
            assert explained(level, kept, kept['initial'], at, b['poses'][at][:2]), (level, at)
        # beyond the border values repeat; where no Gaussian tells them apart, `explained` alone
        # decides
        allowed = ties_allowed(17 * int(a['valid'].sum()))
        assert level == 'no_gaussian' or len(off) <= allowed, level
        assert torch.equal(
            *(suppress_duplicates(o['poses'], o['scores'], o['valid']) for o in (a, b))
        )


@pytest.mark.parametrize(
    'case',
    cases
    or [pytest.param(None, marks=pytest.mark.skip('shared/parity is not beside the checkout'))],
    ids=[c['file'] for c in cases] or ['absent'],
)
def test_released_values(case, released, coco_mini, parity):
    "The released implementation's own poses."
    ref = np.load(parity / case['file'])
    x, matrix = network_input(coco_mini / case['image'], case['short_side'])
    found = detect(released, x[None], matrix[None], case['flip_test'], (case['level'],))[
        case['level']
    ]
    order = np.argsort(-ref['scores'], kind='stable')
    same_people(found, [(ref['poses'][order], ref['scores'][order])])


@pytest.mark.parametrize('size', ((64, 64), (96, 64), (64, 160)))
def test_small_pictures(size):
    "Maps smaller than a window, and every candidate counting."
    torch.manual_seed(0)
    model = LogoCap(4, 8, 8, 4, (12, 10, 8), 3)
    with torch.no_grad():
        model.train().fields(torch.randn(4, 3, *size))
    # else most heights are below 0, and nothing is compared
    model.heatmap_head[-1].weight.data.mul_(0.1)
    torch.nn.init.constant_(model.heatmap_head[-1].bias, 2.0)
    torch.nn.init.constant_(model.cmp[-1].bias, 0.5)
    fast, x, compared = model.eval().optimize(), torch.randn(2, 3, *size), 0
    with torch.inference_mode():
        for flip_test in (False, True):
            a, b = model(x, flip_test), fast(x, flip_test)
            for stage in ('heatmaps', 'offsets', 'embedding'):
                assert (a[stage] - b[stage]).abs().max() <= 1e-3 * a[stage].abs().max(), stage
            for n in range(
                2
            ):  # candidates of equal height may change places, those of height 0 lie anywhere
                i, j = same_centers(a['centers'][n].numpy(), b['centers'][n].numpy())
                people = int((a['centers'][n, :, 2] > 0).sum())
                assert people - len(i) <= 2 * ties_allowed(people)
                compared += len(i)
                if not len(i):
                    continue
                for stage in ('centers', 'initial', 'kam', 'scores'):
                    apart = (a[stage][n, i] - b[stage][n, j]).abs().max()
                    assert apart <= 1e-3 * a[stage].abs().max(), stage
    assert compared


@pytest.mark.parametrize('method', ('centernet', 'dekr', 'associative_embedding'))
def test_prior_arts(method, drawn):
    "The same people in the same places; of equal peaks another one may be taken."
    model, x = load_network(f'{method}-21'), drawn[0][:4]
    fast = model.optimize()
    for flip_test in (False, True):
        with torch.inference_mode():
            theirs, ours = (
                m.poses_of(m.lean_fields(x, flip_test), x.shape[-2:], m.levels)
                for m in (model, fast)
            )
        for level in model.levels:
            a, b = theirs[level], ours[level]
            assert a['valid'].sum() > 10
            found = []
            for o in (a, b):
                stages = zip(o['poses'], o['scores'], o['valid'])
                found.append([(p[v].numpy(), t[v].numpy()) for p, t, v in stages])
            same_people(*found)
    assert fast.fast and type(fast) is type(model) and not model.fast
    for refused in (fast.optimize, lambda: fast.save_pretrained('fast.safetensors')):
        with pytest.raises(ValueError, match='the network that it was made of'):
            refused()


def test_batches(fast, drawn):
    "A picture alone, and the same one in a batch."
    x, m = drawn
    together = detect(fast, x, m)['full']
    alone = [detect(fast, x[i : i + 1], m[i : i + 1])['full'][0] for i in range(len(x))]
    same_people(alone, together)


def test_original_stays_as_it_is(model, drawn):
    before, training = (
        {n: t.clone() for n, t in model.state_dict().items()},
        [m.training for m in model.modules()],
    )
    pointers = [t.data_ptr() for t in model.state_dict().values()]
    fast = model.optimize()
    detect(fast, drawn[0][:1], drawn[1][:1])
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert pointers == [t.data_ptr() for t in model.state_dict().values()]
    assert training == [m.training for m in model.modules()]
    assert not {id(p) for p in model.parameters()} & {id(p) for p in fast.parameters()}


def test_fast_network_can_be_copied(fast, drawn):
    """Among others by pickle, to other processes; after it has run, when oneDNN keeps kernels in
    its own order."""
    x, m = (t[:1] for t in drawn)
    found = detect(fast, x, m)['full']
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        same_people(detect(other, x, m)['full'], found)


def test_without_onednn(model, drawn, monkeypatch):
    "Where PyTorch has no convolution with sum and ReLU, step by step."
    import logocap.fast

    monkeypatch.setattr(logocap.fast, 'one_pass', lambda dtype: False)
    x, m = (t[:4] for t in drawn)
    same_people(detect(model.optimize(), x, m)['full'], detect(model, x, m)['full'])


@pytest.mark.parametrize('k, window', ((0, 11), (3, 5)))
def test_other_networks(k, window):
    "Without attentive normalization, and with another local window."
    torch.manual_seed(0)
    model = LogoCap(4, 8, 8, 4, (12, 10, 8), k)
    model.window = window
    with torch.no_grad():
        model.train().fields(torch.randn(4, 3, 64, 96))
    torch.nn.init.constant_(model.cmp[-1].bias, 0.5)
    x, fast = torch.randn(1, 3, 64, 96), model.eval().optimize()
    with torch.inference_mode():
        a, b = model(x), fast(x)
    assert a['kam'].shape[-1] == window
    assert (a['kam'] - b['kam']).abs().max() < 1e-3 * a['kam'].abs().max()


def test_scales_of_a_fast_network(model, fast, drawn):
    x, m = (t[:2] for t in drawn)
    ours, theirs = (detect(Scales(n, (1, 2)).eval(), x, m)['full'] for n in (fast, model))
    same_people(ours, theirs)


@pytest.mark.parametrize('every', (10, pytest.param(1, marks=pytest.mark.slow)))
@pytest.mark.parametrize('split, flip_test', (('val', False), ('occluded', True)))
def test_bfloat16(model, split, flip_test, every):
    """Convolutions in bfloat16, what is read off in float32: the AP of float32 within its scatter.

    Each keypoint may move by .71 px, see test_parity.py; on many people that nearly cancels. The
    long form looks at all images, the short one at every tenth.
    """
    folder = CocoFolder(own_data('people'), split)
    ids = folder.image_ids()[::every]
    low, high = (
        detect_split(m, folder, ids, None, flip_test, LEVELS, 6)
        for m in (model.optimize(torch.bfloat16), model.optimize())
    )
    changes = oks_changes(folder.coco, ids, None, 0.71, everywhere=True)
    for level in LEVELS:
        points = [average_precision(folder.coco, found[level], ids)['AP'] for found in (low, high)]
        apart = points[0] - points[1]
        limit = ap_scatter(folder.coco, high[level], ids, changes)
        assert abs(apart) < limit, (level, apart, limit)


def test_nobody_and_broken_numbers(fast):
    "An empty batch of candidates cannot be; NaN in the heat maps must give nobody, not an error."
    fields = [torch.full((1, c, 16, 16), torch.nan) for c in (18, 34, 64)]
    with torch.inference_mode():
        found = fast.poses_of(
            (*fields[:2], torch.zeros(1, fast.widths['c3'], 16, 16)), (64, 64), LEVELS
        )
        for level in LEVELS:
            assert not found[level]['valid'].any()


@pytest.fixture
def small(tiny):
    "A very narrow network that sees people everywhere."
    model = LogoCap.from_pretrained(tiny)
    torch.nn.init.constant_(model.heatmap_head[-1].bias, 2.0)
    return model


def page(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def batches(monkeypatch):
    "The shapes that the network is given."
    shapes, seen = [], logocap.predict.detect

    def noting(network, inputs, *args):
        shapes.append(tuple(inputs.shape))
        return seen(network, inputs, *args)

    monkeypatch.setattr(logocap.predict, 'detect', noting)
    return shapes


def same(a, b):
    return len(a) == len(b) and all(
        np.allclose(x, y, rtol=1e-4, atol=1e-2)
        for x, y in ((a.keypoints, b.keypoints), (a.scores, b.scores))
    )


def test_stream_keeps_the_order(small, tmp_path, batches):
    "Sizes mixed, unreadable pictures in between: every picture's own answer in its place."
    (tmp_path / 'torn.jpg').write_bytes(b'torn')
    images = [page(64, 64 + 64 * (n % 3 == 1), n) for n in range(11)]
    for place, bad in (
        (0, tmp_path / 'none.jpg'),
        (4, tmp_path / 'torn.jpg'),
        (5, page(64, 6400)),
        (13, tmp_path / 'none.jpg'),
    ):
        images.insert(place, bad)
    found = list(stream_poses(small.optimize(), images, False, 64, 'none', 3))
    assert [id(image) for image, _ in found] == [id(image) for image in images]
    assert sorted(s[0] for s in batches) == [1, 1, 3, 3, 3]
    for n, (image, poses) in enumerate(found):
        if n in (0, 13):
            assert isinstance(poses, FileNotFoundError)
        elif n in (4, 5):
            assert isinstance(poses, ValueError)
        else:
            assert len(poses) and same(poses, small.optimize().predict(image, False, 64, 'none'))


def test_a_rare_size_does_not_wait(small, batches):
    "Eight batches' pictures and those read ahead, no more, however long the stream is."
    taken = []

    def source():
        for n in range(1000):
            taken.append(n)
            yield page(64, 64) if n else page(64, 128)

    first, poses = next(stream_poses(small.optimize(), source(), False, 64, 'none', 2))
    assert first.shape == (64, 128, 3) and len(poses) and batches[-1] == (1, 3, 64, 128)
    assert 8 * 2 < len(taken) <= 8 * 2 + 2 * 2 + 2


@pytest.mark.parametrize(
    'error', (MemoryError(), RuntimeError('DefaultCPUAllocator: not enough memory'))
)
def test_out_of_memory(small, monkeypatch, error):
    """A batch for which there is not enough is run picture by picture; one that is too large alone
    is named, the others go on."""
    seen, most = logocap.predict.detect, [1]

    def narrow(network, inputs, *args):
        if len(inputs) > most[0] or inputs.shape[-1] > 64:
            raise error
        return seen(network, inputs, *args)

    images = [page(64, 128 if n == 2 else 64, n) for n in range(6)]
    alone = [small.optimize().predict(image, False, 64, 'none') for image in images]
    monkeypatch.setattr(logocap.predict, 'detect', narrow)
    for n, (image, poses) in enumerate(
        stream_poses(small.optimize(), images, False, 64, 'none', 5)
    ):
        assert poses is error if n == 2 else same(poses, alone[n])
    error = RuntimeError('something else')
    with pytest.raises(RuntimeError, match='something else'):
        list(stream_poses(small.optimize(), images, False, 64, 'none', 5))
