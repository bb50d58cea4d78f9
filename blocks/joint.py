"""Joint attention: a gate per position and self-attention over all positions, in one formula.

Source: Zhang M, Dong B, Li Q, "Joint attention", ISBI 2022, 10.1109/ISBI52829.2022.9761624. Only the abstract
is accessible: a unified formula of spatial attention in which point-wise attention localises and self-attention
learns global features, used jointly in a DenseUNet. Formula, fusion, widths and initial values below are OUR
INTERPRETATION.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODES = ("joint", "pointwise", "self")
AXES = ("plane", "volume")
WIDEST_HEAD = 256  # maximum of CUDA's fused kernels
HEAD_MULTIPLE = 8  # of the widths that they take, in float32 and bfloat16


class JointAttention(nn.Module):
    """Y = X + alpha * (a * V) + beta * (A V), with V = X Wv over the N positions of a slice or of the volume.

    The gate a = sigmoid(w2 relu(W1 x + b1) + b2) is one number per position; A = softmax(Q K^T), unscaled as
    in DANet, with queries and keys of channels // `reduction`. alpha starts at 1, beta at 0 (DANet's gamma).
    This is our interpretation, since the paper's full text was not accessible: the abstract states that one formula
    joins the two attentions, and Y = (1 + alpha diag(a) W + beta A W) X is the simplest with both as special cases.

    `mode`: "pointwise" has only the gate (beta = 0), "self" only the attention (alpha = 0). `axes`: attention within
    each "plane" (H, W) or over the "volume". N should stay below about 4096: time grows with N^2. Memory does not,
    since the N x N matrix is never stored.
    """

    def __init__(self, channels: int, *, mode: str = "joint", axes: str = "plane", reduction: int = 8) -> None:
        super().__init__()
        if channels < 1 or reduction < 1:
            raise ValueError(f"JointAttention needs channels and reduction of at least 1, got {channels}, {reduction}")
        if mode not in MODES:
            raise ValueError(f"unknown mode {mode!r}; choose from {', '.join(MODES)}")
        if axes not in AXES:
            raise ValueError(f"unknown axes {axes!r}; choose from {', '.join(AXES)}")
        self.channels = channels
        self.mode = mode
        self.axes = axes
        self.value = nn.Linear(channels, channels)
        if mode != "self":
            hidden = max(1, channels // 2)
            self.gate = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, 1))
            self.alpha = nn.Parameter(torch.ones(1))
        if mode != "pointwise":
            width = max(1, channels // reduction)
            self.query = nn.Linear(channels, width)
            self.key = nn.Linear(channels, width)
            self.beta = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C, D, H, W), kept."""
        if x.dim() != 5 or x.shape[1] != self.channels:
            raise ValueError(f"JointAttention expects (B, {self.channels}, D, H, W), got {tuple(x.shape)}")
        heads = -(-self.channels // WIDEST_HEAD)
        width = max(-(-self.channels // heads), 1 if self.mode == "pointwise" else self.query.out_features)
        width += -width % HEAD_MULTIPLE
        value = _project(x, self.value, width=heads * width)  # (B, D * H * W, C), zeros where that isn't all heads'
        # The gate comes first, so that the backward pass reaches it after freeing the attention's gradients.
        mixed = self._point(x, value) if self.mode != "self" else None
        if self.mode != "pointwise":
            attended = self._attend(x, value, width=width)
            mixed = self.beta * attended if mixed is None else torch.addcmul(mixed, attended, self.beta)
        return x + mixed[:, :, : self.channels].transpose(1, 2).reshape(x.shape)

    def _point(self, x: Tensor, value: Tensor) -> Tensor:
        """alpha * a * V, shaped as V."""
        hidden, out = self.gate[0], self.gate[2]
        gate = out(_project(x, hidden, width=hidden.out_features).relu_()).sigmoid()  # (B, D * H * W, 1)
        return (self.alpha * gate) * value

    def _attend(self, x: Tensor, value: Tensor, *, width: int) -> Tensor:
        """softmax(Q K^T) V, shaped as V. The fused kernels need queries as wide as values: pad them with zeros."""
        groups = x.shape[0] * x.shape[2] if self.axes == "plane" else x.shape[0]
        heads = value.shape[2] // width
        query, key, value = (
            part.reshape(groups, -1, part.shape[2] // width, width).transpose(1, 2)  # (G, 1 or heads, N, width)
            for part in (_project(x, self.query, width=width), _project(x, self.key, width=width), value)
        )
        query, key = query.expand(-1, heads, -1, -1), key.expand(-1, heads, -1, -1)
        out = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return out.transpose(1, 2).reshape(x.shape[0], -1, heads * width)


def _project(x: Tensor, linear: nn.Linear, *, width: int) -> Tensor:
    """Apply `linear` to the channels of x (B, C, D, H, W); return tokens (B, D * H * W, width), padded with zeros.

    The matrix product reads x transposed: x is never copied to tokens.
    """
    extra = width - linear.out_features
    weight, bias = F.pad(linear.weight, (0, 0, 0, extra)), F.pad(linear.bias, (0, extra))
    weight = weight.t().expand(x.shape[0], -1, -1)  # (B, C, width)
    return torch.baddbmm(bias, x.flatten(2).transpose(1, 2), weight)
