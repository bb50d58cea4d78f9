"""UNETR++'s efficient paired attention: over channels and over space, from one projection of the tokens.

Source: unetr_plus_plus at dcba1c6e; the state-dict names are the released ones. Differences: fewer operations for
the same result (`EPA`), and any grid (`EPABlock`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.conv import UnetResBlock

PROJECTIONS = ("shared", "separate", "raw")
ORDERS = ("released", "corrected")
BRANCHES = ("both", "spatial", "channel")
Triple = tuple[int, int, int]


class EPA(nn.Module):
    """Efficient paired attention on (B, N, C), N = `tokens`.

    q, k, v_CA, v_SA = x W^T; q and k are normalised over the tokens. Channel attention is softmax(t1 q^T k)
    on v_CA; spatial attention is softmax(t2 q k_p^T) v_p, with k and v_SA projected from N tokens to P =
    `projection`.

    `projections`: "shared" is the Synapse form (one Linear, registered as E and F), "separate" the form of ACDC and
    Lung (two); both concatenate the output projections of the two halves. "raw" is the Tumor form (one parameter EF
    without bias, the two attentions summed). `order`: "released" is the published order of the spatial attention's
    tokens, which mixes tokens and features and which the authors' weights require; "corrected" keeps each token in
    its place. `branches`: "both", or one attention alone; its output projection is then as wide as the channels, and
    the weights of the other attention are not created.

    This implementation never computes k, v_CA or v_SA: with the Gram matrix G = x^T x the squared norms are
    diag(Wq G Wq^T), the channel logits Wq G Wk^T, and the channel attention is one matrix applied to x; k_p =
    (E x) Wk^T. The spatial attention uses the fused kernel, which doesn't store its N x P maps either (except on the
    CPU with active `dropout`).
    """

    def __init__(
        self,
        channels: int,
        *,
        tokens: int,
        heads: int,
        projection: int | None = None,
        projections: str = "shared",
        order: str = "released",
        dropout: float = 0.0,
        branches: str = "both",
    ) -> None:
        super().__init__()
        if branches not in BRANCHES:
            raise ValueError(f"unknown branches {branches!r}; choose from {', '.join(BRANCHES)}")
        spatial, channel = branches != "channel", branches != "spatial"
        _check_options(channels, tokens=tokens, projection=projection if spatial else 1, heads=heads)
        if projections not in PROJECTIONS:
            raise ValueError(f"unknown projections {projections!r}; choose from {', '.join(PROJECTIONS)}")
        if order not in ORDERS:
            raise ValueError(f"unknown order {order!r}; choose from {', '.join(ORDERS)}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is a probability below 1, got {dropout}")
        if projections != "raw" and branches == "both" and channels % 2:
            raise ValueError(f"EPA joins two halves of the channels: their number must be even, got {channels}")
        self.channels, self.tokens, self.heads = channels, tokens, heads
        self.projections, self.order, self.dropout, self.branches = projections, order, dropout, branches
        if channel:
            self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        if spatial:
            self.temperature2 = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkvv = nn.Linear(channels, (2 + spatial + channel) * channels, bias=False)
        if spatial:
            self._make_projections(tokens, projection)
        if projections != "raw":
            width = channels // 2 if branches == "both" else channels
            if spatial:
                self.out_proj = nn.Linear(channels, width)
            if channel:
                self.out_proj2 = nn.Linear(channels, width)

    def _make_projections(self, tokens: int, projection: int) -> None:
        if self.projections == "raw":
            bound = projection**-0.5
            self.EF = nn.Parameter(torch.empty(tokens, projection).uniform_(-bound, bound))
        else:
            self.E = nn.Linear(tokens, projection)
            self.F = self.E if self.projections == "shared" else nn.Linear(tokens, projection)

    def token_weights(self) -> tuple[Tensor, ...]:
        """Return the token projections' weights, each (P, N): two, one if keys and values share it, or none."""
        if self.branches == "channel":
            return ()
        if self.projections == "raw":
            return (self.EF.t(),)
        return (self.E.weight,) if self.projections == "shared" else (self.E.weight, self.F.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, N, C), kept."""
        if x.dim() != 3 or x.shape[1] != self.tokens or x.shape[2] != self.channels:
            raise ValueError(f"EPA expects (B, {self.tokens}, {self.channels}), got {tuple(x.shape)}")
        return self.attend(x, self.token_weights())

    def attend(self, x: Tensor, token_weights: tuple[Tensor, ...]) -> Tensor:
        """Like `forward` at any N, with token projections for that N instead of the block's own."""
        queries, channel_map = self._fold(x)  # (B, C, C) each: the maps from x to the normalised q and to x_CA
        if self.branches != "spatial" and self.projections != "raw":
            channel_map = self.out_proj2.weight.to(channel_map.dtype) @ channel_map  # (B, C/2 or C, C)
        maps = {"both": [queries, channel_map], "spatial": [queries], "channel": [channel_map]}[self.branches]
        z = x @ torch.cat(maps, dim=1).transpose(1, 2).to(x.dtype)  # (B, N, rows of the maps)
        if self.branches == "channel":
            return z if self.projections == "raw" else z + self.out_proj2.bias
        query, channel = z.split([self.channels, z.shape[2] - self.channels], dim=2)
        space = self._attend_space(x, query, token_weights)
        if self.projections != "raw":
            space = self.out_proj(space)
        if self.branches == "spatial":
            return space
        if self.projections == "raw":
            return channel + space
        return torch.cat([space, channel + self.out_proj2.bias], dim=2)

    def _attend_space(self, x: Tensor, query: Tensor, token_weights: tuple[Tensor, ...]) -> Tensor:
        """x_SA (B, N, C) from the queries (B, N, C)."""
        batch, tokens, channels = x.shape
        keys, values = self._project(x, token_weights)  # (B, heads, P, d) each
        query = query.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, d)
        dropout = self.dropout if self.training else 0.0
        space = F.scaled_dot_product_attention(
            query, keys.to(query.dtype), values.to(query.dtype), dropout_p=dropout, scale=1.0
        )  # (B, heads, N, d)
        to_tokens = (0, 3, 1, 2) if self.order == "released" else (0, 2, 1, 3)
        # Flatten first: reshaping four axes directly to three makes an exported file refuse grids whose N divides C.
        return space.permute(to_tokens).flatten(1).reshape(batch, tokens, channels)

    def _weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the weights of q, k, v_CA and v_SA; a single branch has one v."""
        query, key, *values = self.qkvv.weight.split(self.channels)
        return query, key, values[0], values[-1]

    def _project(self, x: Tensor, token_weights: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """k_p and v_p: first the projection over tokens, then the small projections of the features."""
        _, key_weight, _, value_weight = self._weights()
        sums = [torch.bmm(weight.to(x.dtype).expand(x.shape[0], -1, -1), x) for weight in token_weights]  # (B, P, C)
        keys, values = F.linear(sums[0], key_weight), F.linear(sums[-1], value_weight)
        if self.projections != "raw":
            keys, values = keys + self.E.bias[:, None], values + self.F.bias[:, None]
        return tuple(part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (keys, values))

    def _fold(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return two maps (B, C, C): temperature2 * Wq / |q|, and the channel attention as one map of x's features.

        Computed in at least float32: the norms are differences of large entries of the Gram matrix. The map of a
        missing branch is empty.
        """
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(x.dtype, torch.float32)
            weight_q, weight_k, weight_v, _ = (weight.to(wide) for weight in self._weights())
            x = x.to(wide)
            gram = x.transpose(1, 2) @ x  # (B, C, C)
            q_gram = weight_q @ gram
            q_norm = _norm_of_square((q_gram * weight_q).sum(dim=2))  # (B, C)
            queries = channel_map = q_gram[:, :0]
            if self.branches != "spatial":
                k_norm = _norm_of_square(((weight_k @ gram) * weight_k).sum(dim=2))
                channel_map = self._channel_attention(q_gram, weight_k, q_norm, k_norm) @ weight_v.unflatten(
                    0, (self.heads, -1)
                )  # (B, heads, d, C)
                channel_map = channel_map.flatten(1, 2)  # (B, C, C)
            if self.branches != "channel":
                scale = self.temperature2.to(wide).expand(-1, q_norm.shape[1] // self.heads, 1).reshape(-1)
                queries = weight_q * (scale / q_norm)[:, :, None]
            return queries, channel_map

    def _channel_attention(self, q_gram: Tensor, weight_k: Tensor, q_norm: Tensor, k_norm: Tensor) -> Tensor:
        """Return (B, heads, d, d): the softmax over features of the products of normalised queries and keys."""
        heads = self.heads
        logits = q_gram.unflatten(1, (heads, -1)) @ weight_k.unflatten(0, (heads, -1)).transpose(1, 2)
        logits = logits / q_norm.view(-1, heads, q_norm.shape[1] // heads, 1)
        logits = logits / k_norm.view(-1, heads, 1, k_norm.shape[1] // heads)
        attention = (logits * self.temperature.to(logits.dtype)).softmax(dim=3)
        return F.dropout(attention, self.dropout, self.training)


class EPABlock(nn.Module):
    """UNETR++'s transformer block on (B, C, D, H, W): position embedding, EPA, residual convolutions.

    u = x + position; a = u + gamma * EPA(LayerNorm(u)); out = a + conv8(conv51(a)), with conv52 after conv51 if
    `residual_units` is 2 (ACDC, Lung). Tokens are flattened row-major over `grid`. At another grid the position
    embedding and the token projections are interpolated (trilinear, align_corners=False; the identity at `grid`),
    and the projections scaled by N_built / N because they sum over the tokens. `dropout` applies to both attentions;
    the channel dropout of conv8 is the released 0.1, or `dropout` if that is lower.
    """

    def __init__(
        self,
        channels: int,
        *,
        grid: Triple,
        heads: int,
        projection: int | None = None,
        projections: str = "shared",
        order: str = "released",
        residual_units: int = 1,
        dropout: float = 0.0,
        branches: str = "both",
    ) -> None:
        super().__init__()
        if len(grid) != 3 or min(grid) < 1:
            raise ValueError(f"EPABlock's grid has 3 sizes of at least 1, got {tuple(grid)}")
        if residual_units not in (1, 2):
            raise ValueError(f"EPABlock has 1 or 2 residual units, got {residual_units}")
        self.channels = channels
        self.grid = tuple(grid)
        tokens = grid[0] * grid[1] * grid[2]
        self.epa_block = EPA(
            channels,
            tokens=tokens,
            projection=projection,
            heads=heads,
            projections=projections,
            order=order,
            dropout=dropout,
            branches=branches,
        )
        self.norm = nn.LayerNorm(channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, channels))
        self.conv51 = UnetResBlock(channels, channels, norm="batch")
        self.conv52 = UnetResBlock(channels, channels, norm="batch") if residual_units == 2 else nn.Identity()
        self.conv8 = nn.Sequential(nn.Dropout3d(min(dropout, 0.1)), nn.Conv3d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C, D, H, W), kept."""
        if x.dim() != 5 or x.shape[1] != self.channels:
            raise ValueError(f"EPABlock expects (B, {self.channels}, D, H, W), got {tuple(x.shape)}")
        grid = x.shape[2:]
        x = x + self._resample(self.pos_embed[0].t(), grid).reshape(1, -1, *grid)
        tokens = x.flatten(2).transpose(1, 2)  # (B, N, C)
        scale = self.epa_block.tokens / tokens.shape[1]
        weights = tuple(self._resample(weight, grid) * scale for weight in self.epa_block.token_weights())
        attended = self.gamma * self.epa_block.attend(self.norm(tokens), weights)  # (B, N, C)
        x = x + attended.transpose(1, 2).reshape(x.shape)  # (B, C, D, H, W)
        return x + self.conv8(self.conv52(self.conv51(x)))

    def _resample(self, rows: Tensor, grid: torch.Size) -> Tensor:
        """Resample rows (R, N_built) to another grid, (R, N); one code path for all sizes, for the export."""
        volume = rows.reshape(1, -1, *self.grid)
        return F.interpolate(volume, size=grid, mode="trilinear", align_corners=False).flatten(2)[0]


def _norm_of_square(square: Tensor) -> Tensor:
    return square.clamp_min(1e-24).sqrt()


def _check_options(channels: int, *, tokens: int, projection: int | None, heads: int) -> None:
    if heads < 1 or channels < 1 or channels % heads:
        raise ValueError(f"EPA's heads must divide its channels, got {heads} heads and {channels} channels")
    if projection is None or projection < 1 or projection > tokens:
        raise ValueError(f"EPA's projection is from 1 to its number of tokens, got {projection} and {tokens} tokens")
