"""Self-attention over the frames of a clip."""

from __future__ import annotations

from torch import Tensor, nn


class TimeAttention(nn.Module):
    """Multi-head scaled dot-product self-attention over time, to real frames only.

    Args:
        width: features per frame, of input and output.
        heads: number of attention heads.
        head_width: width of queries, keys and values of each head; heads * head_width need not equal `width`.
    """

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * heads * head_width)
        self.to_out = nn.Linear(heads * head_width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, width) and (B, T) to (B, T, width)."""
        query, key, value = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # A softmax over no keys, and its gradient, are NaN, so a clip without real frames attends to all frames.
        attended = mask | ~mask.any(dim=1, keepdim=True)
        out = nn.functional.scaled_dot_product_attention(query, key, value, attended[:, None, None, :])
        result: Tensor = self.to_out(out.transpose(1, 2).flatten(2))
        return result
