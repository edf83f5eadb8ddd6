"""What rooms 00 to 08 show of a trained network: `python tests/example.py` writes data/example.npz
and data/crowd.npz. test_project.py compares them with what the default network says now.

    python tests/example.py [--weights FILE]"""

import argparse
from pathlib import Path
import numpy as np
import torch
from logocap import LogoCap
from logocap.adaptation import adapt
from logocap.center_offset import upsample
from logocap.cmp import attraction_maps
from logocap.files import whole_file
from logocap.images import network_input
from logocap.kem import global_kem, global_mesh, local_kem, local_mesh
from logocap.keypoints import keypoint_similarity, oks, people_tensors
from logocap.people import draw_people

DATA = Path(__file__).resolve().parent.parent / 'data'
SIZE = (256, 256)


@torch.no_grad()
def said_of(model, image, annotations):
    """What comes out of a network's pieces for a drawn image, beside the true people. Features have
    8 bits, in steps of a 255th of the highest of their channel; maps have 16."""
    keypoints, areas, _ = people_tensors(annotations)
    features = model.backbone(network_input(image, 256)[0][None])
    unit = features.amax((0, 2, 3), keepdim=True).clamp_min(1e-6) / 255
    maps = [head(features).half() for head in (model.heatmap_head, model.offset_head)]
    maps.append(model.embedding_head(features).half())

    heatmaps, offsets, embedding = [m.float() for m in maps]
    stages = model.fast_keypointer(heatmaps, offsets, embedding, SIZE)
    own = oks(stages['initial'][0][:, None], keypoints, areas).argmax(0)
    initial, centers = stages['initial'][:, own], stages['centers'][:, own]
    kam = attraction_maps(model.cmp, local_kem(embedding, local_mesh(initial))).half()
    kem = global_kem(upsample(heatmaps, SIZE), global_mesh(initial))
    return dict(
        image=torch.tensor(image),
        keypoints=keypoints,
        areas=areas,
        features=(features / unit).round().to(torch.uint8),
        unit=unit,
        heatmaps=maps[0],
        offsets=maps[1],
        embedding=maps[2],
        initial=initial,
        centers=centers,
        kam=kam,
        full=adapt(kem, kam.float(), initial, centers)[0],
        without=adapt(kem, None, initial, centers)[0],
    )


def worth_of_maps(said):
    "What attraction maps are worth to the people of an image, of whom there are three at least."
    people, areas = said['keypoints'], said['areas']
    if len(people) < 3:
        return -1.0
    full, without = [oks(said[name][..., :2], people, areas) for name in ('full', 'without')]
    return (full - without).mean().item()


def own_and_others(pose, people, areas):
    "Similarity M×K of each keypoint to its person's, and to the nearest of anybody else's."
    near = keypoint_similarity(pose[:, None, :, :2], people[..., :2], areas)  # poses × people × K
    near = near * (people[..., 2] > 0)
    others = near.masked_fill(torch.eye(len(people), dtype=bool)[..., None], 0).amax(1)
    return near.diagonal().T, others


def given_back(said, before='without', after='full'):
    """What each keypoint gains, M×K, that is at another person's without attraction maps and at its
    own person's with them; 0 for all others."""
    people, areas = said['keypoints'], said['areas']
    own, others = own_and_others(said[before], people, areas)
    own_after, others_after = own_and_others(said[after], people, areas)
    changed = (others > own) & (others >= 0.5) & (own_after > others_after) & (own_after >= 0.5)
    return (own_after - own) * changed


def most_given_back(said):
    return given_back(said).max().item()


RULES = dict(  # series, images to choose from, rule, how they are drawn
    example=(4, 100, worth_of_maps, dict(difficulty=0.6)),
    crowd=(5, 300, most_given_back, dict(occluded=True)),
)


def chosen(model, name):
    """The number of the image of a series that a rule finds best; and of all images looked at, how
    many keypoints attraction maps give back to their person, and how many they take away."""
    series, count, rule, options = RULES[name]
    values, back, away = [], 0, 0
    for index in range(count):
        said = said_of(model, *draw_people(series, index, SIZE, **options))
        values.append(rule(said))
        back += int(given_back(said).count_nonzero())
        away += int(given_back(said, 'full', 'without').count_nonzero())
    best = int(np.argmax(values))
    if values[best] <= 0:
        raise SystemExit(f'no image of series {series} fits the rule of {name}.npz')
    return best, dict(images=count, given_back=back, taken=away)


def example(model, name, index):
    "The content of data/NAME.npz for an image of its series."
    series, _, _, options = RULES[name]
    said = said_of(model, *draw_people(series, index, SIZE, **options))
    if name == 'crowd':  # of which the front shows the end of the method only
        for left_out in ('features', 'unit', 'offsets', 'embedding'):
            del said[left_out]
    return dict({n: np.asarray(array) for n, array in said.items()}, index=np.array(index))


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--weights', help='instead of the default network')
    model = LogoCap.from_pretrained(parser.parse_args().weights)
    for name in RULES:
        file = DATA / f'{name}.npz'
        index, counts = chosen(model, name)
        content = example(model, name, index)
        if name == 'crowd':
            content.update(counts)
        with whole_file(file) as part:
            with open(part, 'wb') as out:
                np.savez_compressed(out, **content)
        print(f'{file}: image {index}, {file.stat().st_size / 1e3:.0f} kB, {counts}')
