"The whole way from pixels to people is one graph, with one shape for each shape of its input."

import numpy as np
import pytest
import torch
import logocap.fast
from logocap.fast import to_people
from logocap.model import LogoCap
from logocap.people import draw_people


@pytest.fixture(scope='module')
def network():
    "Each stage of HRNet with one module: what is repeated has no new breaks."
    torch.manual_seed(0)
    model = LogoCap(4, 8, 8, 4, (12, 10, 8), 3)
    for stage in (model.backbone.stage3, model.backbone.stage4):
        del stage[1:]
    model.candidates = 5
    torch.nn.init.constant_(model.heatmap_head[-1].bias, 2.0)
    torch.nn.init.constant_(model.cmp[-1].bias, 0.5)
    return model.eval().optimize()


def test_one_graph(network, monkeypatch):
    "Compiled as a whole it says the same; a break would be an error."
    monkeypatch.setattr(logocap.fast, 'one_pass', lambda dtype: False)  # as the compiler has it
    pixels = torch.randint(256, (2, 3, 64, 96), dtype=torch.uint8)
    options = torch.eye(2, 3).expand(2, 2, 3), True, ('none', 'full')
    graphs = []

    def noted(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(to_people, fullgraph=True, dynamic=False, backend=noted)
    with torch.inference_mode():
        assert compiled(network, pixels, *options).equal(to_people(network, pixels, *options))
    (graph,) = graphs
    used = [node for node in graph.graph.nodes if node.op == 'call_function']
    assert len(used) > 300
    # constants from the processor's memory would keep a GPU from capturing the graph
    assert torch.tensor not in {node.target for node in used}


def test_predict(monkeypatch):
    "A compiled network predicts, on a CPU too, where others ask how many candidates count."
    monkeypatch.setattr(logocap.fast, 'one_pass', lambda dtype: False)
    network = LogoCap.from_pretrained().optimize()
    image, _ = draw_people(4, 5, (128, 128), 0.4)
    expected = network.predict(image, short_side=128)
    network.compiled = torch.compile(to_people, fullgraph=True, dynamic=False, backend='eager')
    found = network.predict(image, short_side=128)
    assert len(expected)
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)
