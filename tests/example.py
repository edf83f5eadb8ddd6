"""What rooms 02 to 07 show of a trained network: `python tests/example.py` writes data/example.npz.
test_project.py compares it with what the network that comes along says now."""

from pathlib import Path
import numpy as np
import torch
from logocap import LogoCap
from logocap.cmp import attraction_maps
from logocap.files import whole_file
from logocap.images import network_input
from logocap.kem import local_kem, local_mesh
from logocap.keypoints import oks, people_tensors
from logocap.people import draw_people

FILE = Path(__file__).resolve().parent.parent / 'data/example.npz'


@torch.no_grad()
def example():
    """A drawn image that the network has not seen, and what comes out of its pieces.
    Features have 8 bits, in steps of a 255th of the highest of their channel; maps have 16."""
    image, annotations = draw_people(4, 2, (256, 256), 0.6)
    keypoints, areas, _ = people_tensors(annotations)
    model = LogoCap.from_pretrained()
    features = model.backbone(network_input(image, 256)[0][None])
    unit = features.amax((0, 2, 3), keepdim=True).clamp_min(1e-6) / 255
    maps = [head(features).half() for head in (model.heatmap_head, model.offset_head)]
    maps.append(model.embedding_head(features).half())

    heatmaps, offsets, embedding = [m.float() for m in maps]
    stages = model.fast_keypointer(heatmaps, offsets, embedding, (256, 256))
    own = oks(stages['initial'][0][:, None], keypoints, areas).argmax(0)
    initial = stages['initial'][:, own]
    kam = attraction_maps(model.cmp, local_kem(embedding, local_mesh(initial)))
    arrays = dict(
        image=np.asarray(image),
        keypoints=keypoints,
        areas=areas,
        features=(features / unit).round().to(torch.uint8),
        unit=unit,
        heatmaps=maps[0],
        offsets=maps[1],
        embedding=maps[2],
        initial=initial,
        centers=stages['centers'][:, own],
        kam=kam.half(),
    )
    return {name: np.asarray(array) for name, array in arrays.items()}


if __name__ == '__main__':
    with whole_file(FILE) as part:
        with open(part, 'wb') as out:
            np.savez_compressed(out, **example())
