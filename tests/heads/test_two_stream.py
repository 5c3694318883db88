import pytest
import torch

from painseq.errors import PainseqError
from painseq.heads import TwoStream

SMALL = {"landmarks": 3, "units": 8, "heads": 2, "head_width": 4, "ratio": 2, "dense_cnn": 8}


def model(width: int, **more) -> TwoStream:
    return TwoStream((width,), 3, **SMALL, **more)


def test_both_streams_count_and_the_landmarks_are_the_last_columns():
    torch.manual_seed(0)
    head = model(10).eval()
    seen = {}
    head.cnn.register_forward_hook(lambda module, args, out: seen.update(cnn=args[0]))
    head.landmark.register_forward_hook(lambda module, args, out: seen.update(landmarks=args[0]))
    x, mask = torch.randn(2, 5, 10), torch.ones(2, 5, dtype=torch.bool)
    out = head(x, mask)
    assert torch.equal(seen["cnn"], x[..., :4]) and torch.equal(seen["landmarks"], x[..., 4:])
    for column in range(10):
        changed = x.clone()
        changed[..., column] += 1
        assert not torch.allclose(head(changed, mask), out, atol=1e-6)


def test_squeeze_and_excitation_of_the_pooled_vector_equals_that_of_the_map():
    torch.manual_seed(0)
    head = model(10).eval()
    maps = torch.randn(2, 5, 4, 7, 7)
    pooled = maps.mean(dim=(-1, -2))
    gate = head.cnn.excite(pooled)
    recalibrated = (maps * gate[..., None, None]).mean(dim=(-1, -2))
    mask = torch.ones(2, 5, dtype=torch.bool)
    expected = head.cnn.finish(head.cnn.norm(head.cnn.dense(recalibrated), mask))
    torch.testing.assert_close(head.cnn(pooled, mask), expected)


def test_phase_two_takes_over_both_streams_of_phase_one_and_nothing_else():
    torch.manual_seed(0)
    cnn, landmarks, fused = model(4, only="cnn"), model(6, only="landmarks"), model(10)
    fusion = {name: value.clone() for name, value in fused.state_dict().items() if name.startswith("fusion")}
    x, mask = torch.randn(4, 5, 10), torch.ones(4, 5, dtype=torch.bool)
    cnn(x[..., :4], mask), landmarks(x[..., 4:], mask)
    taken = fused.start(cnn.state_dict()) + fused.start(landmarks.state_dict())
    assert sorted([*taken, *fusion]) == sorted(fused.state_dict())
    for stream, name in ((cnn.cnn, "cnn"), (landmarks.landmark, "landmark")):
        torch.testing.assert_close(fused.get_submodule(name).state_dict(), stream.state_dict(), atol=0, rtol=0)
    torch.testing.assert_close({name: fused.state_dict()[name] for name in fusion}, fusion, atol=0, rtol=0)


@pytest.mark.parametrize(("width", "only"), [(6, None), (10, "landmarks")])
def test_frames_of_another_width_are_refused_with_a_word_on_what_to_ask_the_data_for(width, only):
    with pytest.raises(PainseqError, match=rf"(?s)(?=.*TwoStream)(?=.*\b{width}\b)(?=.*landmarks)"):
        model(width, only=only)
