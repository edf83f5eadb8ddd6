"""A benchmark, not a test: trained from scratch on twelve photographs, LOGO-CAP finds their people.

    python tests/twelve_photographs.py ../shared/coco-mini RUN [STEPS]

The twelve are the first, by id, of the training images on which every annotated person is large
enough to have a center target (32² px), at 256 px and without augmentation. RUN keeps the run,
which goes on where it was interrupted, and `result.json`: AP on those twelve, before and after
adaptation. On one core: OMP_NUM_THREADS=1 taskset -c 0 python …
"""

import sys
import time
from dataclasses import replace
from pathlib import Path
import torch
from logocap.images import normalize
from logocap.files import write_json
from logocap.coco import CocoFolder, average_precision, coco_results
from logocap.predict import detect
from logocap.training import PRESETS, CocoSamples, square_transform, train

data, out = Path(sys.argv[1]), Path(sys.argv[2])
steps = int(sys.argv[3]) if len(sys.argv) > 3 else 600
recipe = replace(PRESETS['people'], batch_size=6, lr=2e-3, milestones=(0.75, 0.9))
folder = CocoFolder(data, 'train2017')
samples = CocoSamples(folder, recipe)


def suits(image_id):
    people = folder.coco.imgToAnns[image_id]
    if not people or any(a['iscrowd'] for a in people):
        return False
    return all(a['num_keypoints'] > 0 and a['area'] >= 32**2 for a in people)


# CocoSamples asks for nothing but its ids
samples.ids = [i for i in sorted(samples.ids) if suits(i)][:12]
start = time.time()
model = train(samples, recipe, out, steps, device='cpu', log_every=20)
seconds, points = round(time.time() - start), {}
# the very pictures it was trained on
inputs = torch.stack([normalize(samples[0, n, 1.0]['image'].numpy()) for n in range(12)])
sizes = [(folder.coco.imgs[i]['width'], folder.coco.imgs[i]['height']) for i in samples.ids]
transforms = [square_transform(*wh, recipe.size)[0] for wh in sizes]
matrices = torch.stack([torch.tensor(t, dtype=torch.float32) for t in transforms])
levels = detect(model.eval(), inputs, matrices, False, ('none', 'partial', 'full'))
for level, found in levels.items():
    results = [r for i, people in zip(samples.ids, found) for r in coco_results(i, *people)]
    points[level] = round(average_precision(folder.coco, results, samples.ids)['AP'], 1)
write_json(out / 'result.json', dict(pictures=samples.ids, steps=steps, AP=points, seconds=seconds))
print((out / 'result.json').read_text())
