"""Video vision transformer of Arnab et al. 2021, on pixels."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from painseq.batch import masked_mean
from painseq.errors import PainseqError
from painseq.heads.head import Head
from painseq.heads.recorded_attention import recorded_attention, rolled_out, spread_over_pixels

NORM_EPSILON = 1e-6
PUBLISHED_SIDE = 14
"""Patches along a side in published networks: 224 pixels in patches of 16."""
OWN_NAMES = (
    (r"^vi(vi)?t\.", ""),
    (r"^(embeddings\.patch_embeddings\.projection|patch_embed\.proj)\.", "embed."),
    (r"^(embeddings\.)?cls_token$", "space.cls"),
    (r"^(embeddings\.position_embeddings|pos_embed)$", "space.positions"),
    (r"^(encoder\.layer|layers|blocks)\.", "space.blocks."),
    (r"^(layernorm|norm)\.", "space.norm."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attn\.qkv\.", ".qkv."),
    (r"\.attention\.(?:attention\.)?([qkv])(?:uery|ey|alue|_proj)\.", r".\1."),
    (r"\.(attention\.output\.dense|attention\.o_proj|attn\.proj)\.", ".proj."),
    (r"\.(intermediate\.dense|mlp\.fc1)\.", ".fc1."),
    (r"\.(output\.dense|mlp\.fc2)\.", ".fc2."),
)
"""(pattern, replacement), in order, for weight names of transformers (in its files and in its classes) and timm."""


class TransformerBlock(nn.Module):
    """A pre-norm transformer block: attention, then two dense layers four times as wide, with tanh-GELU."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.drop = nn.Dropout(dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width, NORM_EPSILON), nn.LayerNorm(width, NORM_EPSILON)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, attend: Tensor | None) -> Tensor:
        """(N, L, D) to (N, L, D); `attend` is (N, 1, 1, L) bool, true for tokens to attend to, or None for all."""
        n, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        dropout = self.drop.p if self.training else 0.0
        attention = F.scaled_dot_product_attention(q, k, v, attn_mask=attend, dropout_p=dropout)
        x = x + self.drop(self.proj(attention.transpose(1, 2).reshape(n, length, width)))
        x = x + self.drop(self.fc2(F.gelu(self.fc1(self.norm2(x)), approximate="tanh")))
        return x


class Encoder(nn.Module):
    """Transformer encoder of tokens on a grid of time steps and patches to one vector.

    `cls` is the sum of the CLS token and its positional embedding. It also exists with mean pooling, so that a clip
    without real frames has a token to attend to.
    """

    def __init__(
        self,
        grid: tuple[int, int, int],
        width: int,
        depth: int,
        heads: int,
        pool: Literal["cls", "mean"],
        dropout: float,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(*grid, width))
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width, NORM_EPSILON)

    def forward(self, tokens: Tensor, real: Tensor | None) -> Tensor:
        """(N, T, P, D), P patches at each time step, to (N, D); `real` is (N, T) bool, or None if all are real."""
        n, steps, patches, _ = tokens.shape
        x: Tensor = (tokens + self.positions[:steps].flatten(1, 2)).flatten(1, 2)
        x = self.drop(torch.cat([self.cls.expand(n, -1, -1), x], dim=1))
        attend = counts = None
        if real is not None:
            counts = real[:, :, None].expand(-1, -1, patches).flatten(1)
            attend = F.pad(counts, (1, 0), value=True)[:, None, None]
        for block in self.blocks:
            x = block(x, attend)
        x = self.norm(x)
        if self.pool == "cls":
            return x[:, 0]
        return x[:, 1:].mean(dim=1) if counts is None else masked_mean(x[:, 1:], counts)


class ViViT(Head):
    """ViViT on face crops: tubelet embedding, joint or factorised encoder, linear classifier.

    Arnab et al. 2021, "ViViT: A Video Vision Transformer". The joint encoder is their model 1, one transformer over
    all tokens of a clip. The factorised encoder is their model 2, a transformer over the tokens of each time step,
    followed by a transformer over time steps. The defaults are ViViT-B/16x2. A clip shorter than `frames` uses the
    first positions in time.

    Frames without a face are masked: a tubelet without real frames is excluded from attention and pooling. In a tubelet
    with some real frames, their mean replaces the others.

    Deviations: the CLS token and its positional embedding are one parameter; a CLS token is also used with mean
    pooling; the classifier does not start at zero; no stochastic depth.

    Args:
        in_shape: (3, S, S) pixels, S a multiple of the tubelet's side.
        frames: largest number of frames per clip.
        tubelet: number of frames, and side in pixels.
        width: width of the tokens.
        depth: blocks of the joint or spatial encoder.
        heads: number of attention heads.
        encoder: "joint" or "factorised".
        temporal_depth: blocks of the temporal encoder of the factorised network.
        pool: output of an encoder: its CLS token, or the mean of the real tokens.
        dropout: dropout of tokens, attention and both branches of each block.
        mean, std: normalisation of pixels in 0..1. By default the network sees -1..1, as in training of the authors'
            Kinetics weights (and of timm's "augreg" image transformers). transformers' `VivitImageProcessor` also maps
            to -1..1 (rescale_factor 1/127.5 and offset), but normalises the result again unless do_normalize is false.
            To reproduce it with image_mean m and image_std s, set mean to (1 + m) / 2 and std to s / 2.

    Raises:
        PainseqError: no square pixels, or the size of the crops or `width` is not divisible by tubelets or heads.
    """

    level: Literal["frame", "video"] = "video"
    attends_to: frozenset[Literal["frames", "pixels"]] = frozenset({"frames", "pixels"})
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        in_shape: tuple[int, ...],
        num_classes: int,
        frames: int = 32,
        tubelet: tuple[int, int] = (2, 16),
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        encoder: Literal["joint", "factorised"] = "joint",
        temporal_depth: int = 4,
        pool: Literal["cls", "mean"] = "cls",
        dropout: float = 0.0,
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.5, 0.5, 0.5),
    ) -> None:
        super().__init__(in_shape, num_classes)
        length, side = tubelet
        if len(self.in_shape) != 3 or self.in_shape[0] != 3 or self.in_shape[1] != self.in_shape[2]:
            raise PainseqError(
                f"ViViT needs pixels, (3, S, S) per frame, but the frames have shape {self.in_shape}. Use the "
                "extractor Pixels: --config configs/extractor/pixels.yaml, which also sets data.options.view to pixels."
            )
        if self.in_shape[-1] % side or width % heads:
            raise PainseqError(
                f"ViViT: crops of {self.in_shape[-1]} pixels must be divisible into tubelets of {side}, and a width of "
                f"{width} into {heads} heads. Change the size of the crops, `tubelet`, `width` or `heads`."
            )
        self.frames = self.max_frames = frames
        self.tubelet = (length, side)
        self.width, self.depth, self.heads = width, depth, heads
        self.encoder, self.temporal_depth, self.pool, self.dropout = encoder, temporal_depth, pool, dropout
        self.mean, self.std = tuple(mean), tuple(std)
        self.register_buffer("pixel_mean", 255 * torch.tensor(self.mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", 255 * torch.tensor(self.std).reshape(3, 1, 1), persistent=False)
        steps, patches, joint = math.ceil(frames / length), self.in_shape[-1] // side, encoder == "joint"
        self.embed = nn.Conv3d(3, width, (length, side, side), stride=(length, side, side))
        self.space = Encoder((steps if joint else 1, patches, patches), width, depth, heads, pool, dropout)
        self.time = None if joint else Encoder((steps, 1, 1), width, temporal_depth, heads, pool, dropout)
        self.classifier = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv3d):
                nn.init.xavier_uniform_(module.weight.flatten(1))
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def penultimate(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, 3, S, S), uint8 or float 0..255, to (B, width); see `Head.penultimate`.

        Raises:
            PainseqError: a clip longer than `frames`.
        """
        if x.shape[1] > self.frames:
            raise PainseqError(
                f"ViViT was built for clips of at most {self.frames} frames, but a clip has {x.shape[1]}. Sample fewer "
                "frames per second when extracting (--data.options.fps), or increase the head's `frames`."
            )
        tubelets, real = self._tubelets(x, mask)
        # Tubelets do not overlap, so the convolution is a matrix product with its kernel.
        tokens = F.linear(tubelets, self.embed.weight.flatten(1), self.embed.bias)
        if self.time is None:
            video: Tensor = self.space(tokens, real)
        else:
            # A time step is real or masked as a whole, so its tokens need no mask.
            steps = self.space(tokens.flatten(0, 1)[:, None], None)
            video = self.time(steps.reshape(*real.shape, 1, -1), real)
        return video

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, 3, S, S), uint8 or float 0..255, to video logits (B, K).

        Raises:
            PainseqError: a clip longer than `frames`.
        """
        logits: Tensor = self.classifier(self.penultimate(x, mask))
        return logits

    def frame_attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """`pixel_attention` summed over each frame's pixels, (B, T); sums to 1 over a clip's real frames."""
        frames = self.pixel_attention(x, mask).flatten(2).sum(dim=2)
        return frames / frames.sum(dim=1, keepdim=True)

    def pixel_attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attention rollout, (B, T, S, S); see `Head.pixel_attention`.

        A clip sums to 1 minus the share of the CLS token. A tubelet's share is divided among its real frames.
        """
        with recorded_attention() as layers:
            self(x, mask)
        (batch, frames), patches = mask.shape, self.in_shape[-1] // self.tubelet[1]
        length = self.tubelet[0]
        real = F.pad(mask, (0, -frames % length)).reshape(batch, -1, length)
        real_steps = real.any(dim=2)
        if self.time is None:
            real_tokens = real_steps[:, :, None].expand(-1, -1, patches**2).flatten(1)
            grid = _attended(rolled_out(layers), real_tokens, self.pool).reshape(batch, -1, patches, patches)
        else:
            depth = len(self.space.blocks)
            all_tokens = torch.ones_like(real_steps.flatten()[:, None]).expand(-1, patches**2)
            in_space = _attended(rolled_out(layers[:depth]), all_tokens, self.pool)
            in_time = _attended(rolled_out(layers[depth:]), real_steps, self.pool)
            grid = in_time[..., None, None] * in_space.reshape(batch, -1, patches, patches)
        share = real / real.sum(dim=2, keepdim=True).clamp(min=1)
        shared = (grid[:, :, None] * share[..., None, None]).flatten(1, 2)[:, :frames]
        return spread_over_pixels(shared.flatten(0, 1), x.shape[-1]).reshape(*mask.shape, *x.shape[-2:])

    def _tubelets(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Each tubelet's pixels in the kernel's order, (B, T', P, 3 * t * s * s), and the mask of real time steps."""
        (length, side), (batch, frames, _, height, _) = self.tubelet, x.shape
        missing, patches = -frames % length, height // side
        x = F.pad((x - self.pixel_mean) / self.pixel_std, (0, 0, 0, 0, 0, 0, 0, missing))
        x = x.reshape(batch, -1, length, 3, patches, side, patches, side)
        mask = F.pad(mask, (0, missing)).reshape(batch, -1, length)
        real = mask.reshape(*mask.shape, 1, 1, 1, 1, 1)
        # `where` instead of a product, as masked frames may contain NaN.
        x = torch.where(real, x, torch.zeros((), dtype=x.dtype, device=x.device))
        x = torch.where(real, x, x.sum(dim=2, keepdim=True) / real.sum(dim=2, keepdim=True).clamp(min=1))
        return x.permute(0, 1, 4, 6, 3, 2, 5, 7).flatten(4).flatten(2, 3), mask.any(dim=2)

    def start(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Initialise with the weights of a ViViT or of an image transformer, before training.

        Accepts this network's names and those of transformers' ViViT and ViT and of timm's ViT. An image transformer's
        patch kernel is copied to the tubelet's central frame, and its positions are repeated in time; in the factorised
        network it becomes the spatial encoder. Positional embeddings are interpolated to other sizes (bicubic) and
        lengths (linear). transformers' files do not state the grid of a video's positions: it is assumed to be this
        network's if the number fits, otherwise 14 x 14 patches as in published networks. A classifier for a different
        number of classes, a kernel for other tubelets and positions on a non-square grid are left out.

        Args:
            tensors: name -> tensor of the other network.

        Returns:
            Names of this network's tensors that were copied.

        Raises:
            PainseqError: blocks of a different architecture.
        """
        found = _own_names(tensors)
        known = {name.split(".", 3)[3] for name in self.state_dict() if name.startswith("space.blocks.")}
        unknown = sorted({name.split(".", 3)[3] for name in found if name.startswith("space.blocks.")} - known)
        if unknown:
            raise PainseqError(
                f"These weights are of a transformer with other blocks than ViViT: they have {', '.join(unknown[:3])}. "
                "Start from a plain ViT or ViViT, for example timm:vit_base_patch16_224.augreg_in21k."
            )
        kernel, embed = found.get("embed.weight"), self.embed.weight
        image = kernel is not None and kernel.ndim == 4
        if kernel is not None and image:
            found["embed.weight"] = kernel.new_zeros(*kernel.shape[:2], embed.shape[2], *kernel.shape[2:])
            found["embed.weight"][:, :, embed.shape[2] // 2] = kernel
        if "space.positions" in found and found["space.positions"].ndim == 3:
            _split_positions(found, self.space.positions.shape, image)
        for name, tensor in self.state_dict().items():
            if name.endswith(".positions") and name in found:
                found[name] = _resized(found[name], tensor.shape)
        if "classifier.weight" in found and found["classifier.weight"].shape != self.classifier.weight.shape:
            found = {name: tensor for name, tensor in found.items() if not name.startswith("classifier.")}
        return super().start(found)


def _attended(rolled: Tensor, real: Tensor, pool: str) -> Tensor:
    """Share of each token in an encoder's output, (N, L).

    Args:
        rolled: (N, 1 + L, 1 + L) attention rollout, CLS token first.
        real: (N, L) bool, true for real tokens.
        pool: pooling of the encoder.
    """
    if pool == "cls":
        return rolled[:, 0, 1:] * real
    rows = rolled[:, 1:, 1:] * real[:, :, None]
    return rows.sum(dim=1) / real.sum(dim=1, keepdim=True).clamp(min=1) * real


def _own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under this network's names, with separate queries, keys and values joined."""
    found = {}
    for name, tensor in tensors.items():
        for pattern, own in OWN_NAMES:
            name = re.sub(pattern, own, name)
        found[name] = tensor
    for name in [name for name in found if ".q." in name]:
        parts = [name.replace(".q.", f".{part}.") for part in "qkv"]
        if all(part in found for part in parts):
            found[name.replace(".q.", ".qkv.")] = torch.cat([found.pop(part) for part in parts])
    return found


def _split_positions(found: dict[str, Tensor], own: tuple[int, ...], image: bool) -> None:
    """Split flat positions of other networks, (1, [CLS +] N, D), into a grid (T, H, W, D) and the CLS token's."""
    flat = found.pop("space.positions")[0]
    grid = (len(flat) // PUBLISHED_SIDE**2, PUBLISHED_SIDE, PUBLISHED_SIDE)
    if image:
        grid = (1, math.isqrt(len(flat)), math.isqrt(len(flat)))
    elif len(flat) == 1 + math.prod(own[:3]):
        grid = (own[0], own[1], own[2])
    cls_tokens = len(flat) - math.prod(grid)
    if cls_tokens <= 1:
        found["space.positions"] = flat[cls_tokens:].reshape(*grid, -1)
    if cls_tokens == 1 and "space.cls" in found:
        found["space.cls"] = found["space.cls"] + flat[0]


def _resized(grid: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Interpolate positions (T, H, W, D) to a grid of another length and size."""
    if grid.ndim != 4 or grid.shape == shape or grid.shape[-1] != shape[-1]:
        return grid
    in_space = grid.float().permute(0, 3, 1, 2)
    in_space = F.interpolate(in_space, size=shape[1:3], mode="bicubic", antialias=True)
    in_time = F.interpolate(in_space.permute(1, 2, 3, 0).flatten(1, 2), size=shape[0], mode="linear")
    return in_time.permute(2, 1, 0).reshape(shape)
