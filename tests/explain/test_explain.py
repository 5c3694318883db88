"""Every method on every head; answers that are known."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import painseq.heads
from painseq.batch import Sample, collate
from painseq.data.labels import Scale
from painseq.data.person_scale import PersonScale
from painseq.errors import PainseqError
from painseq.explain import (
    Frames,
    MethodOptions,
    Scorer,
    explain,
    features_of,
    frames_of_sample,
    frames_of_store,
    frames_of_video,
    space_methods,
    time_methods,
)
from painseq.explain.by_input import TOLERANCE
from painseq.faces import FaceCrops, Sidecar
from painseq.features import ClipFeatures
from painseq.heads import FrameANN, Head, LinearFrames, LinearProbe
from painseq.model.averaging import AveragedModel

HEADS = (
    "frame_ann", "linear_frames", "linear_probe", "lstm", "stacked_lstm", "bilstm_attention", "attention_mil",
    "temporal_conv_net", "two_stream", "vivit", "vivit_mean", "vivit_factorised",
)  # fmt: skip
TREES = ("histogram_boosting", "gradient_boosting", "random_forest", "adaboost", "deep_adaboost")
D = 4


def of_features(head: Head, make_model, x: torch.Tensor, present: torch.Tensor | None = None, **record):
    present = torch.ones(len(x), dtype=torch.bool) if present is None else present
    return make_model(None, head, **record), Frames(x, present, torch.arange(len(x)) / 5)


def test_every_exported_head_is_explained_here(made):
    exported = {getattr(painseq.heads, name) for name in painseq.heads.__all__} - {Head}
    assert {type(made(name)[0].head) for name in (*HEADS, *TREES)} == exported


@pytest.mark.parametrize("name", [*HEADS, *TREES])
def test_every_method_says_nothing_of_masked_frames_and_something_of_others(made, name):
    model, crops = made(name)
    assert space_methods(model) and time_methods(model)
    for clip, methods in ((crops, space_methods(model)), (features_of(model, crops), time_methods(model))):
        for method in methods:
            found = explain(model, clip, method, 1, MethodOptions(most_steps=8, patch_px=16))
            assert len(found.values) == len(clip) and found.values.isfinite().all(), method
            assert (found.values[~clip.present] == 0).all(), method
            # The vote may be for other classes throughout, and nothing may speak for this one.
            assert method in ("votes", "gradcam") or found.values.any(), method
            assert found.over_time.shape == (len(clip),)
            assert found.has_space == (clip.are_pixels and method not in ("frame_occlusion", "attention", "votes"))
            if found.has_space:
                assert found.maps.shape == found.heat().shape == (len(clip), *clip.x.shape[-2:])
                assert float(found.heat().min()) >= 0 and float(found.heat(0.01).max()) <= 1
            if method in ("integrated_gradients", "gradient_x_input", "saliency"):
                assert found.values.shape == clip.x.shape


def test_nothing_is_explained_in_tensorfloat_32(made):
    model, clip = made("lstm")
    before, seen = torch.backends.cudnn.allow_tf32, []
    handle = model.extractor.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    explain(model, clip, "gradcam")
    handle.remove()
    assert seen and not any(seen) and torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize("name", [*HEADS, *TREES])
def test_what_stands_in_masked_frames_does_not_matter(made, name):
    model, clip = made(name)
    features = features_of(model, clip)
    other = clip.x.float().clone()
    other[~clip.present] = torch.nan
    torn = features.x.float().clone()
    torn[~clip.present] = torch.nan
    for before, after in (
        (clip, dataclasses.replace(clip, x=other)),
        (features, dataclasses.replace(features, x=torn)),
    ):
        for method in ("frame_occlusion",) if name in TREES else ("gradient_x_input", "frame_occlusion"):
            torch.testing.assert_close(
                explain(model, after, method).values, explain(model, before, method).values, rtol=1e-4, atol=1e-7
            )


@pytest.mark.parametrize("target", [0, 2])
@pytest.mark.parametrize("name", HEADS)
def test_integrated_gradients_are_complete(made, name, target):
    model, crops = made(name)
    clip = features_of(model, crops)
    found = explain(model, clip, "integrated_gradients", target)
    scorer = Scorer(model, clip, target)
    nothing = torch.zeros_like(scorer.x)
    if clip.are_pixels:
        nothing += scorer.x[scorer.real].mean(dim=(0, 2, 3))[:, None, None]
    with torch.no_grad():
        difference = float(scorer(scorer.x[None]) - scorer(nothing[None]))
    assert abs(float(found.values.double().sum()) - difference) <= 1.001 * TOLERANCE * abs(difference)
    assert found.completeness_error == pytest.approx(abs(float(found.values.double().sum()) / difference - 1), abs=1e-3)


@pytest.mark.parametrize("name", ["lstm", "attention_mil"])
def test_integrated_gradients_of_crops_are_complete(made, name):
    model, clip = made(name)
    clip = Frames(clip.x[:2], clip.present[:2], clip.times_s[:2])
    found = explain(model, clip, "integrated_gradients")
    assert found.completeness_error < TOLERANCE and found.steps > 0


def test_steps_that_do_not_suffice_are_told(made):
    model, crops = made("temporal_conv_net")
    clip = features_of(model, crops)
    found = explain(model, clip, "integrated_gradients", 0, MethodOptions(most_steps=8))
    assert found.steps == 8
    total = found.values.double().sum()
    scorer = Scorer(model, clip, 0)
    with torch.no_grad():
        difference = scorer.score - float(scorer(torch.zeros_like(scorer.x)[None]))
    assert found.completeness_error == pytest.approx(abs(float(total) / difference - 1), rel=1e-3)


def test_a_score_that_the_clip_does_not_move_has_no_error(make_model):
    head = LinearProbe((D,), 3)
    torch.nn.init.zeros_(head.classify.weight)
    model, clip = of_features(head.eval(), make_model, torch.randn(5, D))
    found = explain(model, clip, "integrated_gradients", 0)
    assert not found.values.any() and found.completeness_error == 0


def test_gradient_times_input_of_a_linear_head_is_each_frames_contribution(make_model):
    head = LinearProbe((D,), 3).eval()
    x, present = torch.randn(5, D), torch.tensor([1, 0, 1, 1, 0]).bool()
    model, clip = of_features(head, make_model, x, present)
    expected = x @ head.classify.weight[2].detach() / np.sqrt(1 + head.norm.eps) / 3 * present
    for method in ("gradient_x_input", "integrated_gradients"):
        found = explain(model, clip, method, 2).over_time
        torch.testing.assert_close(found, expected)
    bias = head.classify.bias[2].detach()
    torch.testing.assert_close(expected.sum() + bias, torch.tensor(Scorer(model, clip, 2).score))


def test_leaving_a_frame_out_of_a_mean(make_model):
    head = LinearFrames((D,), 3).eval()
    x, present = torch.randn(5, D), torch.tensor([1, 0, 1, 1, 1]).bool()
    model, clip = of_features(head, make_model, x, present)
    each = head(x[None], present[None])[0].log_softmax(-1)[:, 1].detach()
    expected = torch.zeros(5)
    for frame in (0, 2, 3, 4):
        others = present.clone()
        others[frame] = False
        expected[frame] = each[present].mean() - each[others].mean()
    torch.testing.assert_close(explain(model, clip, "frame_occlusion", 1).values, expected, atol=1e-6, rtol=0)
    # With its neighbours: frame 3 goes with 2 and 4, and 0 with nobody, since 1 shows no face.
    wide = explain(model, clip, "frame_occlusion", 1, MethodOptions(frames_together=3)).values
    torch.testing.assert_close(wide[3], each[present].mean() - each[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(wide[0], expected[0], atol=1e-6, rtol=0)


def test_an_even_number_of_frames_can_be_left_out(make_model):
    head = LinearFrames((D,), 3).eval()
    x = torch.randn(5, D)
    model, clip = of_features(head, make_model, x)
    each = head(x[None], clip.present[None])[0].log_softmax(-1)[:, 1].detach()
    found = explain(model, clip, "frame_occlusion", 1, MethodOptions(frames_together=2)).values
    torch.testing.assert_close(found[1], each.mean() - each[[0, 3, 4]].mean(), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[4], each.mean() - each[:4].mean(), atol=1e-6, rtol=0)


def test_a_clip_of_which_no_frame_would_be_left_is_refused(made):
    for name in ("lstm", "frame_ann", "vivit"):
        model, crops = made(name)
        one = torch.arange(9) == 3
        clip = features_of(model, dataclasses.replace(crops, present=one))
        for method in time_methods(model):
            if method == "frame_occlusion":
                with pytest.raises(PainseqError, match=r"(?s)\b1\b.*\b1\b"):
                    explain(model, clip, method)
            else:
                found = explain(model, clip, method, options=MethodOptions(most_steps=8)).values
                assert found.isfinite().all() and not found[~one].any()
        with pytest.raises(PainseqError, match=r"(?s)\b99\b.*\b7\b"):
            explain(model, features_of(model, crops), "frame_occlusion", options=MethodOptions(frames_together=99))


def test_a_class_goes_by_name_or_number(made):
    model, crops = made("lstm")
    clip = features_of(model, crops)
    named, numbered = (explain(model, clip, "saliency", target) for target in ("low_pain", 1))
    assert named.target == 1 and torch.equal(named.values, numbered.values)
    with pytest.raises(PainseqError, match=r"(?s)'joy'.*no_pain, low_pain, high_pain"):
        explain(model, clip, "saliency", "joy")
    model, crops = made("lstm", outputs=1, loss="mse", class_names=(), scale=Scale("pspi", 0.0, 16.0))
    with pytest.raises(PainseqError, match=r"(?s)pspi.*'pain'"):
        explain(model, features_of(model, crops), "saliency", "pain")


def test_features_of_another_width_are_refused(made):
    for name in ("lstm", "two_stream", "vivit"):
        model, _ = made(name)
        clip = Frames(torch.randn(4, 7), torch.ones(4).bool(), torch.arange(4) / 5)
        with pytest.raises(PainseqError, match=rf"(?s)\b7\b.*{' x '.join(map(str, model.head.in_shape))}"):
            explain(model, clip, "saliency")


def test_votes_are_counted(make_model):
    head = LinearFrames((3,), 3).eval()
    with torch.no_grad():
        head.layers[1].weight.copy_(torch.eye(3))
        head.layers[1].bias.zero_()
    x = torch.eye(3)[[0, 1, 1, 2, 1]]
    model, clip = of_features(head, make_model, x, torch.tensor([1, 1, 1, 1, 0]).bool())
    found = explain(model, clip, "votes")
    assert found.class_name == "low_pain" and found.values.tolist() == [0, 0.25, 0.25, 0, 0]


def test_weights_of_multiple_instance_pooling(made):
    model, crops = made("attention_mil")
    clip = features_of(model, crops)
    found = explain(model, clip, "attention").values
    expected = model.head.frame_attention(clip.x[None], clip.present[None])[0]
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize("name", ["attention_mil", "bilstm_attention", "two_stream", "vivit", "vivit_factorised"])
def test_attention_sums_to_one(made, name):
    model, crops = made(name)
    found = explain(model, features_of(model, crops), "attention").values
    assert (found >= 0).all() and float(found.sum()) == pytest.approx(1, abs=1e-5)


def test_attention_of_a_bilstm_belongs_to_its_frame(made):
    """With keys that grow with the frame's own features, the frame that stands out is attended to."""
    model, crops = made("bilstm_attention")
    clip = features_of(model, crops)
    gaps = explain(model, clip, "attention").values
    # Moved together, the same real frames get the same attention.
    packed = Frames(clip.x[clip.present], torch.ones(int(clip.present.sum())).bool(), clip.times_s[clip.present])
    torch.testing.assert_close(gaps[clip.present], explain(model, packed, "attention").values)


def test_covering_what_nobody_looks_at_changes_nothing(made):
    model, clip = made("vivit")
    side = clip.x.shape[-1]
    with torch.no_grad():
        # Blind to the right half: tubelets of 8 x 8 pixels, whose kernel sees its left columns only.
        model.head.embed.weight[..., 4:] = 0
    values = explain(model, clip, "occlusion", 0, MethodOptions(patch_px=4, frames_together=2)).maps
    columns = torch.arange(side) % 8 >= 4
    assert values[..., columns].abs().max() < 1e-6 and values[..., ~columns].abs().max() > 1e-4


def test_occlusion_equals_scores_computed_by_hand(made, batch_of):
    model, clip = made("lstm")
    found = explain(model, clip, "occlusion", 2, MethodOptions(patch_px=16, frames_together=3)).maps
    scorer = Scorer(model, clip, 2)
    covered = clip.x.float().clone()
    colour = clip.x[clip.present].float().mean(dim=(0, 2, 3))
    covered[3:6, :, 16:, :16] = colour[:, None, None]
    logits = model(batch_of(clip, covered)).detach()
    torch.testing.assert_close(
        found[3:6, 16:, :16], torch.full((3, 16, 16), scorer.score - float(logits[0, 2])), atol=1e-5, rtol=1e-4
    )


def test_the_score_is_the_logit_or_the_mean_log_probability(made, batch_of):
    for name in ("lstm", "frame_ann"):
        model, clip = made(name)
        logits = model(batch_of(clip))[0].detach()
        for target in range(3):
            if name == "lstm":
                expected = logits[target]
            else:
                expected = torch.log(logits[clip.present].softmax(-1)[:, target]).mean()
            assert Scorer(model, clip, target).score == pytest.approx(float(expected), abs=1e-5)


def test_the_predicted_class_is_explained_unless_another_is_named(made):
    for name in ("lstm", "frame_ann"):
        model, crops = made(name)
        clip = features_of(model, crops)
        found = explain(model, clip, "saliency")
        sample = Sample("a", "s", 0, clip.present, clip.times_s, features=clip.x)
        assert found.target == int(model.decide(collate([sample])).label)
        assert explain(model, clip, "saliency", 2).class_name == "high_pain"


def test_corn_and_a_scale_are_explained_too(made, batch_of):
    corn, crops = made("lstm", outputs=2, loss="corn")
    found = explain(corn, features_of(corn, crops), "integrated_gradients", 2)
    assert found.completeness_error < TOLERANCE and found.score < 0
    for name in ("lstm", "frame_ann"):
        scale = Scale("pspi", 0.0, 16.0)
        model, crops = made(name, outputs=1, loss="mse", class_names=(), scale=scale)
        found = explain(model, features_of(model, crops), "integrated_gradients")
        assert found.class_name == "pspi" and found.completeness_error < TOLERANCE
        outputs = model(batch_of(crops))[0].detach()
        expected = outputs[0] if name == "lstm" else outputs[crops.present].mean()
        assert found.score == pytest.approx(float(expected), rel=1e-5)
        assert explain(model, crops, "gradcam").values.shape == (9, 32, 32)
        with pytest.raises(PainseqError, match=r"(?s)\b1\b.*\b1\b"):
            explain(model, crops, "saliency", 1)


def test_averaged_models_and_stated_mixes(made, batch_of):
    first, crops = made("lstm")
    torch.manual_seed(9)
    second = made("lstm")[0]
    torch.nn.init.normal_(second.head.classify[2].weight)
    for model in (first, second):
        model.record = dataclasses.replace(model.record, train_prior=(0.5, 0.25, 0.25))
    both = AveragedModel([first, second])
    found = explain(both, crops, "gradcam", 1)
    assert found.values.any() and both.extractor is first.extractor
    expected = torch.stack([model(batch_of(crops)).detach().softmax(-1) for model in (first, second)])
    assert found.score == pytest.approx(float(expected.mean(0)[0, 1].log()), abs=1e-5)
    moved = first.with_prior({"no_pain": 0.8, "low_pain": 0.1, "high_pain": 0.1})
    shift = np.log(0.1) - np.log(0.25)
    clip = features_of(first, crops)
    assert explain(moved, clip, "saliency", 1).score == pytest.approx(
        explain(first, clip, "saliency", 1).score + shift, abs=1e-5
    )


def test_frames_in_several_portions_give_the_same(made, monkeypatch):
    model, clip = made("lstm")
    whole = {
        method: explain(model, clip, method, 0, MethodOptions(most_steps=8, patch_px=16)).values
        for method in space_methods(model)
    }
    monkeypatch.setattr("painseq.explain.score.FRAMES_AT_ONCE", 2)
    monkeypatch.setattr("painseq.explain.gradcam.FRAMES_AT_ONCE", 2)
    for method, values in whole.items():
        again = explain(model, clip, method, 0, MethodOptions(most_steps=8, patch_px=16)).values
        torch.testing.assert_close(again, values, rtol=1e-3, atol=1e-3 * float(values.abs().max()))


def test_features_relative_to_a_persons_own(made):
    model, clip = made("lstm", baseline_clips=1, normalise=("baseline",))
    with pytest.raises(PainseqError, match="baseline"):
        explain(model, clip)
    neutral = torch.randn(model.head.in_shape)
    clip = dataclasses.replace(clip, scale=PersonScale.pain_free(neutral[None].numpy()))
    relative = features_of(model, clip)
    plain = features_of(made("lstm")[0], dataclasses.replace(clip, scale=None))
    torch.testing.assert_close(relative.x[clip.present], plain.x[clip.present] - neutral)
    assert not relative.x[~clip.present].any()
    found = explain(model, clip, "gradcam")
    assert found.score == pytest.approx(explain(model, relative, "saliency").score, abs=1e-5)


def test_clips_of_stores_and_data_modules(made):
    model, crops = made("lstm")
    features = features_of(model, crops).x
    stored = frames_of_store(model, ClipFeatures(features.half(), crops.present, crops.times_s))
    sample = frames_of_sample(Sample("a", "s", 0, crops.present, crops.times_s, features=features))
    of_crops = frames_of_sample(Sample("a", "s", 0, crops.present, crops.times_s, video=crops.x))
    expected = explain(model, crops, "integrated_gradients", 1, MethodOptions(most_steps=8))
    assert explain(model, of_crops, "integrated_gradients", 1, MethodOptions(most_steps=8)).score == expected.score
    for clip in (stored, sample):
        assert explain(model, clip, "saliency", 1).score == pytest.approx(expected.score, abs=2e-2)
    two, crops = made("two_stream")
    landmarks = torch.rand(9, 3, 2)
    clip = frames_of_store(two, ClipFeatures(features, crops.present, crops.times_s, landmarks))
    assert clip.x.shape == (9, features.shape[1] + 6)
    clip = frames_of_store(two, ClipFeatures(crops.x, crops.present, crops.times_s, landmarks))
    assert clip.are_pixels and clip.extra.shape == (9, 6)
    assert explain(two, clip, "gradcam").values.shape == (9, 32, 32)


def test_a_video_without_a_face_is_said_to_have_none_by_a_model_of_landmarks_too(made, electrical, tmp_path):
    source = electrical / "Test" / "S06" / "S06_1.mp4"
    shutil.copy(source, tmp_path / "a.mp4")
    nobody = {"times_s": np.zeros(1), "boxes": np.full((1, 4), np.nan, np.float32), "scores": np.zeros(1, np.float32)}
    save_file(nobody, tmp_path / "a.faces.safetensors")
    model, _ = made("two_stream")
    model.face = FaceCrops(Sidecar(), size_px=32)
    clip = frames_of_video(model, tmp_path / "a.mp4", end_s=2.0)
    with pytest.raises(PainseqError, match="face"):
        explain(model, clip)


def test_what_cannot_be_explained_is_said(made, make_model):
    model, clip = made("lstm")
    features = features_of(model, clip)
    with pytest.raises(PainseqError, match="face"):
        explain(model, dataclasses.replace(clip, present=torch.zeros(9).bool()))
    with pytest.raises(PainseqError, match=r"(?s)gradcam.*crops.*features"):
        explain(model, features, "gradcam")
    for name, wrong in {"frames_together": 0, "patch_px": -1, "most_steps": 0}.items():
        with pytest.raises(PainseqError, match=rf"(?s){name}.*{wrong}\b"):
            explain(model, clip, "occlusion", options=MethodOptions(**{name: wrong}))
    with pytest.raises(PainseqError, match=r"(?s)layer1.*gradcam.*saliency"):
        explain(model, clip, "saliency", options=MethodOptions(layer="layer1"))
    with pytest.raises(PainseqError, match=r"(?s)'lime'.*gradcam, rollout"):
        explain(model, features, "lime")
    with pytest.raises(PainseqError, match=r"(?s)LSTM.*AttentionMIL"):
        explain(model, features, "attention")
    with pytest.raises(PainseqError, match=r"(?s)LSTM.*vote"):
        explain(model, features, "votes")
    with pytest.raises(PainseqError, match=r"(?s)ViViT.*LSTM.*TimmBackbone"):
        explain(model, clip, "rollout")
    with pytest.raises(PainseqError, match=r"(?s)saliency.*map"):
        _ = explain(model, features, "saliency").maps
    with pytest.raises(PainseqError, match=r"(?s)\b3\b.*\b3\b"):
        explain(model, features, "saliency", 3)
    without, crops = made("vivit")
    with pytest.raises(PainseqError, match=r"(?s)VGG16, TimmBackbone.*Pixels"):
        explain(without, crops, "gradcam")
    blind = make_model(None, FrameANN((6,), 3).eval(), streams=("landmarks",))
    crops = dataclasses.replace(crops, extra=torch.randn(9, 6))
    with pytest.raises(PainseqError, match=r"(?s)streams.*landmarks"):
        explain(blind, crops, "saliency")
    assert space_methods(blind) == ()
    assert explain(blind, features_of(blind, crops)).values.shape == (9, 6)


def test_progress_ends_at_one(made):
    model, clip = made("lstm")
    for method in ("gradcam", "integrated_gradients", "occlusion", "frame_occlusion"):
        shares: list[float] = []
        explain(model, clip, method, options=MethodOptions(most_steps=32), on_progress=shares.append)
        assert shares == sorted(shares) and shares[-1] == 1, method


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_gradients_are_on_where_the_caller_has_turned_them_off(made, off):
    model, clip = made("lstm")
    expected = {
        method: explain(model, clip, method, 0, MethodOptions(most_steps=8)).values
        for method in ("gradcam", "saliency")
    }
    with off():
        for method, values in expected.items():
            assert torch.equal(explain(model, clip, method, 0).values, values)


def test_no_weight_gets_a_gradient(made):
    model, clip = made("lstm")
    for method in space_methods(model):
        explain(model, clip, method, options=MethodOptions(most_steps=8))
    assert all(parameter.grad is None for parameter in model.parameters())
