"Message passing: attentive normalization by loops; nobody, half precision, gradients."

import torch
from logocap.cmp import AttentiveNorm, MessagePassing, attraction_maps


def small_cmp(k=20):
    return MessagePassing(8, (48, 32, 24), k)


def test_attentive_norm_by_loops():
    torch.manual_seed(0)
    norm = AttentiveNorm(6, 4).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    x = torch.randn(3, 6, 11, 11) + 1
    with torch.no_grad():
        attention, slow = norm.attention.weight[..., 0, 0], torch.empty_like(x)
        for n in range(3):
            ratio = torch.stack([m.mean() / (m.var(unbiased=True) + 1e-3) ** 0.5 for m in x[n]])
            y = [min(max(float(row @ ratio) + 3, 0), 6) / 6 for row in attention]
            for c in range(6):
                hat = (x[n, c] - norm.running_mean[c]) / (norm.running_var[c] + 1e-5) ** 0.5
                scale = sum(y[k] * norm.scales[k, c] for k in range(4))
                shift = sum(y[k] * norm.shifts[k, c] for k in range(4))
                slow[n, c] = scale * hat + shift
        assert torch.allclose(norm(x), slow, atol=1e-5)


def test_every_parameter_has_a_gradient():
    torch.manual_seed(0)
    x = torch.randn(3, 6, 11, 11) + 1
    for module, inputs in ((AttentiveNorm(6, 4), x), (small_cmp(), torch.randn(30, 136, 11, 11))):
        module(inputs).square().mean().backward()
        for name, p in module.named_parameters():
            assert p.grad.abs().sum() > 0, name


def test_nobody_and_bfloat16():
    torch.manual_seed(0)
    cmp, kem = small_cmp().eval(), torch.randn(2, 30, 136, 11, 11)
    with torch.no_grad():
        assert attraction_maps(cmp, kem[:, :0]).shape == (2, 0, 17, 11, 11)
        assert attraction_maps(cmp.bfloat16(), kem.bfloat16()).dtype == torch.float32


def test_plain_norms_only():
    assert not any(isinstance(m, AttentiveNorm) for m in small_cmp(0).modules())
