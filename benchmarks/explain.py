"""What explanations of a clip cost beside the forward pass on its pixels, and whether portions change them.

    python benchmarks/explain.py            # 300 frames through VGG16 and test_resnet, under the LSTM; some minutes
    python benchmarks/explain.py --write    # and record the table in benchmarks/RESULTS.md

First each method's answer is compared with a plain one: all frames in one graph, without portions and without computing
activations again. Then forward pass and methods are timed in turns, on one thread and in processor time, which other
programs on the machine hardly move; the fastest of `--rounds` counts. Grad-CAM may cost 4 forward passes at most.
"""

import argparse
import time
from collections.abc import Callable

import torch
from results import RESULTS, machine, write_between
from torch import Tensor, nn

from painseq.batch import Batch, Sample, collate
from painseq.explain import Frames, MethodOptions, default_layer, explain, list_layers
from painseq.extractors import VGG16, Extractor, TimmBackbone
from painseq.heads import LSTM
from painseq.model.pain_model import PainModel
from painseq.model.record import DataRecord, ModelRecord, SplitRecord
from painseq.spec import spec_of

GOAL = 4.0
VGG16_BLOCKS = {f"block{block}": f"features.{last_relu}" for block, last_relu in enumerate((3, 8, 15, 22, 29), 1)}


def model_of(extractor: Extractor) -> PainModel:
    torch.manual_seed(0)
    head, nobody = LSTM(extractor.out_shape, 3), SplitRecord("none", (), (), ())
    record = ModelRecord(
        class_names=("no_pain", "low_pain", "high_pain"),
        scale=None,
        head=spec_of(head),
        loss="cross_entropy",
        in_shape=extractor.out_shape,
        extractor=extractor.record(),
        face=None,
        fps=25.0,
        streams=("cnn",),
        baseline_clips=0,
        train_prior=(1 / 3, 1 / 3, 1 / 3),
        data=DataRecord("none", "three", "", nobody, {}, None),
        started_from=(),
        fitted_on=(),
        extractor_trained_on=(),
        validation_seen_by_extractor=(),
        validation_seen_by_start=(),
    )
    return PainModel(record, head, extractor, None)


def clip_of(frames: int, side: int) -> Frames:
    crops = torch.randint(0, 256, (frames, 3, side, side), generator=torch.Generator().manual_seed(1))
    return Frames(crops.to(torch.uint8), torch.arange(frames) % 10 != 9, torch.arange(frames) / 25)


def batch_of(clip: Frames, x: Tensor) -> Batch:
    """Crops in place of a clip's own, as a batch of one."""
    return collate([Sample("clip", "subject", 0, clip.present, clip.times_s, video=x)])


def plain_grad_cam(model: PainModel, clip: Frames, layer: nn.Module) -> Tensor:
    """Grad-CAM in one graph over all frames."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: object, out: Tensor) -> Tensor:
        seen.append(out)
        return out.clone()

    handle = layer.register_forward_hook(keep)
    logits = model(batch_of(clip, clip.x.float().requires_grad_()))
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[0, 0], seen)
    cam = (gradient.mean(dim=(2, 3), keepdim=True) * seen[0].detach()).sum(dim=1, keepdim=True).relu()
    out = torch.zeros(len(clip), *clip.x.shape[-2:])
    size = clip.x.shape[-2:]
    out[clip.present] = nn.functional.interpolate(cam, size=size, mode="bilinear", align_corners=False)[:, 0]
    return out


def plain_saliency(model: PainModel, clip: Frames) -> Tensor:
    x = clip.x.float().requires_grad_()
    (gradient,) = torch.autograd.grad(model(batch_of(clip, x))[0, 0], x)
    return gradient.abs()


def check(extractor: Extractor, frames: int) -> float:
    """Largest difference to the plain answers, as a share of their largest value.

    Raises:
        AssertionError: above 1e-3.
    """
    model, clip = model_of(extractor), clip_of(frames, extractor.input_size_px)
    worst, maps = 0.0, 0
    for layer in list_layers(extractor):
        expected = plain_grad_cam(model, clip, extractor.network.get_submodule(VGG16_BLOCKS.get(layer, layer)))
        maps += bool(expected.any())
        found = explain(model, clip, "gradcam", 0, MethodOptions(layer=layer)).values
        worst = max(worst, float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12)))
    expected = plain_saliency(model, clip)
    found = explain(model, clip, "saliency", 0).values
    worst = max(worst, float((found - expected).abs().max() / expected.abs().max()))
    assert maps, "every map is empty, so nothing was compared"
    assert worst < 1e-3, f"portions change the answer by {worst:.2g} of its largest value"
    return worst


def row(name: str, extractor: Extractor, frames: int, rounds: int) -> str:
    difference = check(extractor, 40)
    model, clip = model_of(extractor), clip_of(frames, extractor.input_size_px)
    layers = list(list_layers(extractor))
    layer = default_layer(list_layers(extractor))

    def forward() -> None:
        with torch.inference_mode():
            for some in torch.split(clip.x[clip.present], 32):
                extractor(some)

    kinds: dict[str, Callable[[], object]] = {
        "forward": forward,
        "gradcam": lambda: explain(model, clip, "gradcam", 0, MethodOptions(layer=layer)),
        "gradcam, first layer": lambda: explain(model, clip, "gradcam", 0, MethodOptions(layer=layers[0])),
        "saliency": lambda: explain(model, clip, "saliency", 0),
    }
    best = dict.fromkeys(kinds, float("inf"))
    for _ in range(rounds):
        for kind, run in kinds.items():
            start = time.process_time()
            run()
            best[kind] = min(best[kind], time.process_time() - start)
            print(f"{name}: {kind} {best[kind]:.1f} s", flush=True)
    ratio = {kind: seconds / best["forward"] for kind, seconds in best.items()}
    assert ratio["gradcam"] <= GOAL, f"{name}: Grad-CAM costs {ratio['gradcam']:.2f} forward passes, above {GOAL}"
    return (
        f"| {name}, {extractor.input_size_px} px | {frames} | {difference:.1g} | {best['forward']:.1f} s "
        f"| {ratio['gradcam']:.2f} ({layer}) | {ratio['gradcam, first layer']:.2f} ({layers[0]}) "
        f"| {ratio['saliency']:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="record the table in benchmarks/RESULTS.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        row("test_resnet", TimmBackbone("test_resnet", input_size_px=160, seed=0).eval(), args.frames, args.rounds),
        row("VGG16", VGG16(input_size_px=224, seed=0).eval(), args.frames, args.rounds),
    ]
    table = "\n".join(
        [
            f"{machine()} One thread.",
            "",
            "| extractor under the LSTM | frames | largest difference to one graph | forward pass | Grad-CAM "
            "| Grad-CAM of the first layer | one gradient to the pixels |",
            "|---|---|---|---|---|---|---|",
            *rows,
        ]
    )
    print(table)
    if args.write:
        write_between(RESULTS, "explain", table)


if __name__ == "__main__":
    main()
