import math

import torch

from painseq.model.decision import decide


def logits(*rows):
    return torch.tensor(rows, dtype=torch.float32)[None]


def test_the_majority_of_frames_decides_whatever_their_confidence():
    decision = decide("frame", logits([9.0, 0, 0], [0, 0.1, 0], [0, 0.1, 0]), torch.ones(1, 3, dtype=torch.bool))
    assert decision.label.tolist() == [1]
    assert decision.probabilities.argmax().item() == 0
    torch.testing.assert_close(decision.votes, torch.tensor([[1 / 3, 2 / 3, 0.0]]))


def test_a_tied_vote_goes_to_the_higher_mean_probability_among_the_tied():
    mask = torch.ones(1, 4, dtype=torch.bool)
    decision = decide("frame", logits([2.0, 0, 1.9], [2.0, 0, 1.9], [0, 5.0, 0], [0, 5.0, 0]), mask)
    assert decision.label.tolist() == [1]


def test_masked_frames_do_not_vote():
    mask = torch.tensor([[True, False, False]])
    decision = decide("frame", logits([1.0, 0, 0], [0, 9.0, 0], [0, 9.0, 0]), mask)
    assert decision.label.tolist() == [0]
    assert decision.votes.tolist() == [[1.0, 0.0, 0.0]]


def test_probabilities_of_frames_are_the_mean_of_their_softmax():
    torch.manual_seed(0)
    x, mask = torch.randn(2, 5, 3), torch.tensor([[True] * 5, [True, False, True, False, False]])
    decision = decide("frame", x, mask)
    for row in range(2):
        torch.testing.assert_close(decision.probabilities[row], x[row][mask[row]].softmax(-1).mean(0))


def test_a_threshold_decides_by_the_clips_probability_and_not_by_votes():
    mask = torch.tensor([[True, True, True], [True, True, False], [False, False, False]])
    # Two of three frames vote for the second class, with little confidence.
    rows = torch.tensor([[9.0, 0.0], [0.0, 0.1], [0.0, 0.1]]).expand(3, 3, 2)
    probability = decide("frame", rows, mask).probabilities[0, 1].item()
    assert decide("frame", rows, mask).label.tolist()[0] == 1
    for threshold, label in ((probability, 1), (math.nextafter(probability, 1), 0), (0.0, 1), (1.0, 0)):
        decision = decide("frame", rows, mask, threshold=threshold)
        assert decision.label.tolist()[::2] == [label, -1]
        torch.testing.assert_close(decision.votes[0], torch.tensor([1 / 3, 2 / 3]))
    one = torch.tensor([[0.0, 0.0]])
    assert decide("video", one, mask[:1], threshold=0.5).label.tolist() == [1]
