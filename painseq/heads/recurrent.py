"""LSTM over clips of different lengths, in one or both directions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn


def in_float32(lstm: nn.LSTM, x: Tensor) -> Tensor:
    """Output of an LSTM at each step, (B, T, units), computed in float32 for any training precision.

    Under autocast, cuDNN's LSTM would compute in float16 even for bfloat16, without loss scaling, and the small
    gradients of long clips would vanish.
    """
    device = x.device.type
    # The meta device, used to check heads, has no autocast.
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
        out: Tensor = lstm(x.float())[0]
    return out


def stepped(lstm: nn.LSTM, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Read one step, (B, width), from the state h and c, each (B, units); return the next h, the output, and c."""
    h, c = lstm(x.float()[:, None], (h[None], c[None]))[1]
    return h[0], c[0]


class ClipLSTM(nn.Module):
    """LSTM of any depth over clips whose real frames come first (`painseq.batch.real_frames_first`).

    Equivalent to `torch.nn.LSTM` on packed sequences, but without packing, which needs the lengths on the host and
    therefore synchronises with the GPU in each step. The backward direction reads the real frames in reverse.

    Args:
        width: features per frame.
        units: units per layer and direction.
        layers: number of layers.
        bidirectional: whether to read clips in both directions.
        dropout: between layers.
    """

    def __init__(
        self, width: int, units: int, layers: int = 1, bidirectional: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.units = units
        self.out_width = units * (2 if bidirectional else 1)
        widths = [width] + [self.out_width] * (layers - 1)
        self.ahead = nn.ModuleList(nn.LSTM(size, units, batch_first=True) for size in widths)
        self.back = nn.ModuleList(nn.LSTM(size, units, batch_first=True) for size in (widths if bidirectional else []))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, width) and its mask, real frames first, to (B, T, out_width): forward, then backward direction."""
        clip, time = torch.arange(len(x), device=x.device)[:, None], torch.arange(x.shape[1], device=x.device)
        length = mask.sum(dim=1, keepdim=True)
        reverse = torch.where(time < length, length - 1 - time, time)
        for depth, ahead in enumerate(self.ahead):
            x = self.drop(x) if depth else x
            assert isinstance(ahead, nn.LSTM)
            out = in_float32(ahead, x)
            if self.back:
                back = self.back[depth]
                assert isinstance(back, nn.LSTM)
                out = torch.cat([out, in_float32(back, x[clip, reverse])[clip, reverse]], dim=-1)
            x = out
        return x

    def step(self, x: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Read one frame, (B, width), in the forward direction; return the output, (B, units), and the next state.

        Args:
            state: "h_0", "c_0", ... of each layer, (B, units).
        """
        following: dict[str, Tensor] = {}
        for depth, ahead in enumerate(self.ahead):
            x = self.drop(x) if depth else x
            assert isinstance(ahead, nn.LSTM)
            x, cell = stepped(ahead, x, state[f"h_{depth}"], state[f"c_{depth}"])
            following |= {f"h_{depth}": x, f"c_{depth}": cell}
        return x, following

    def ends(self, out: Tensor, mask: Tensor) -> Tensor:
        """Final output of each direction, (B, out_width), from the output of `forward`."""
        last = out[torch.arange(len(out), device=out.device), (mask.sum(dim=1) - 1).clamp(min=0)]
        return torch.cat([last[:, : self.units], out[:, 0, self.units :]], dim=-1)
