"""Laws of queries that are carried from keyframe to keyframe."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from tiny import (
    assert_all_learn,
    batch,
    build_detector,
    data_sample,
    tiny_detector,
    tiny_head,
)
from tiny import losses_of as tiny_losses

from stmixer_mm.models.boxes import xyxy_to_xyzr
from stmixer_mm.models.parts import Batch
from stmixer_mm.projects.track_queries.query_interaction import QueryInteraction
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import DecoderOutput, Queries, StageOutput

QUERIES, DIMS = 5, 16
LEFT, RIGHT, FAR = (5, 5, 30, 60), (50, 8, 90, 60), (60, 2, 70, 9)


def interaction(**settings):
    torch.manual_seed(0)
    return QueryInteraction(
        embed_dims=DIMS, num_queries=QUERIES, num_classes=4, **settings
    )


def detector(parts=(), **settings):
    query_interaction = dict(type='QueryInteraction', **settings)
    config = dict(tiny_detector(), query_interaction=query_interaction)
    return build_detector(config | dict(parts))


def tracks(*ids, missed=None, seed=0):
    """Tracks with vectors of their own, at LEFT and RIGHT."""
    generator = torch.Generator().manual_seed(seed)
    count = len(ids)
    bboxes = torch.tensor([LEFT, RIGHT] * count, dtype=torch.float32)[:count]
    bboxes = bboxes.reshape(-1, 4)
    return InstanceData(
        metainfo=dict(next_id=10),
        spatial=torch.randn(count, DIMS, generator=generator),
        temporal=torch.randn(count, DIMS, generator=generator),
        boxes_xyzr=xyxy_to_xyzr(bboxes),
        bboxes=bboxes.numpy(),
        ids=np.array(ids, int),
        missed=np.array(missed or [0] * count, int),
    )


def keyframe(persons, place=0, video='a'):
    """A sample of a sequence, of boxes by the ids of persons."""
    actions = [(1,)] * len(persons)
    sample = data_sample([*persons.values()], actions, name=f'{video},{place}')
    sample.entity_ids = np.array([*persons], int)
    sample.set_metainfo(dict(video_id=video, timestamp=place, sequence_place=place))
    return sample


COMES_AND_GOES = (
    [keyframe({3: LEFT}), keyframe({}, video='b')],
    [keyframe({3: RIGHT, 4: LEFT}, 1), keyframe({0: RIGHT}, 1, 'b')],
    [keyframe({4: LEFT}, 2), keyframe({0: RIGHT}, 2, 'b')],
)
NOBODY_THERE = ([keyframe({})], [keyframe({}, 1)])


def test_a_track_has_the_person_of_its_id_and_the_assignment_sees_the_rest():
    samples = [keyframe({5: LEFT, 2: RIGHT}), keyframe({})]
    track_persons = interaction().match([tracks(2, -1, 4, 5), tracks(5)], samples)
    assert track_persons.tolist() == [[2, 0, 0, 1], [0, -1, -1, -1]]

    truth = keyframe({7: LEFT, 8: RIGHT, 9: FAR})
    at = torch.tensor([[LEFT, FAR, RIGHT, FAR]], dtype=torch.float32)
    output = StageOutput(torch.zeros(1, 4, 2), torch.zeros(1, 4, 3), at)
    # The last two queries are tracks: of person 0, who is elsewhere, and of nobody.
    head = MODELS.build(tiny_head())
    _, persons = head.loss([output], [truth], torch.tensor([[1, 0]]))
    assert persons.tolist() == [[2, 3, 1, 0]]


def said(scores, bboxes):
    """Output of Q queries and of tracks with these person scores."""
    scores, count = torch.tensor(scores), len(scores)
    logits = torch.stack((scores.logit(), torch.zeros_like(scores)), dim=-1)[None]
    bboxes = torch.tensor(bboxes, dtype=torch.float32)[None, :count]
    return DecoderOutput(
        [StageOutput(logits, None, None)],
        Queries(torch.randn(1, count, DIMS), torch.randn(1, count, DIMS)),
        xyxy_to_xyzr(bboxes),
    )


APART = [[100 * place, 0, 100 * place + 20, 50] for place in range(8)]


def by_scores(part, track_queries, outputs):
    """The tracks for the next keyframe, and the ids of all queries, -1 of losers."""
    sample = keyframe({})
    sample.tracks = track_queries
    queries = torch.arange(outputs.boxes_xyzr.size(1))
    (instances,) = part.finish(
        Batch([], [sample], None), outputs, [InstanceData(queries=queries)]
    )
    ids = torch.full_like(queries, -1)
    ids[instances.queries] = instances.instances_id
    return sample.tracks, ids


def test_births_misses_and_ends():
    part = interaction(max_missed=3)
    track_queries = tracks(4, 6, 7, missed=[0, 1, 2])
    outputs = said([0.69, 0.7, 0.1, 0.9, 0.2, 0.6, 0.59, 0.59], APART)
    following, ids = by_scores(part, track_queries, outputs)
    # 4 was seen, 6 missed for the second time, 7 for the third and last one.
    assert following.ids.tolist() == [4, 6, 11, 10]
    assert following.missed.tolist() == [0, 2, 0, 0]
    assert ids.tolist() == [12, 11, 14, 10, 13, 4, 6, 7]
    # Who was seen looks as now, who was missed as when it was seen last.
    assert following.spatial[0].equal(outputs.queries.spatial[0, 5])
    assert following.spatial[1].equal(track_queries.spatial[1])
    assert following.boxes_xyzr[1].equal(track_queries.boxes_xyzr[1])
    assert following.temporal[2:].equal(outputs.queries.temporal[0, [1, 3]])
    # There are at most as many tracks as queries.
    following, _ = by_scores(part, tracks(4, 6), said([0.9] * 7, APART))
    assert following.ids.tolist()[:2] == [4, 6] and len(following) == QUERIES


def test_of_one_box_one_query_has_the_person():
    track_queries = tracks(4, 6)  # last seen at LEFT and at RIGHT
    # Both tracks, and two queries of the decoder, now find who is at RIGHT.
    outputs = said([0.9, 0.95, 0.8, 0.1, 0.1, 0.99, 0.7], APART)
    outputs.boxes_xyzr[0, [0, 5, 6]] = track_queries.boxes_xyzr[1]
    following, ids = by_scores(interaction(), track_queries, outputs)
    assert following.ids.tolist() == [6, 4, 10, 12]
    assert following.missed.tolist() == [0, 1, 0, 0]
    assert following.boxes_xyzr[1].equal(track_queries.boxes_xyzr[0])
    assert ids.tolist() == [-1, 10, 12, 13, 14, -1, 6]
    # Where no track is sure, the surest has the box.
    outputs = said([0.02, 0.59, 0.01, 0.01, 0.01, 0.58, 0.58], APART)
    outputs.boxes_xyzr[0, :2] = outputs.boxes_xyzr[0, 5:]
    assert by_scores(interaction(), tracks(4, 6), outputs)[1].tolist()[:2] == [-1, 10]


def by_truth(part, track_queries, persons):
    outputs = said(
        torch.linspace(0.2, 0.8, len(persons)).tolist(),
        [FAR, LEFT, RIGHT, FAR, RIGHT, LEFT, RIGHT],
    )
    truth = keyframe({3: LEFT, 5: RIGHT})
    truth.tracks = track_queries
    part.loss(Batch([], [truth], None), outputs, torch.tensor([persons]))
    return truth.tracks, outputs.queries.spatial[0]


def test_in_training_the_truth_says_who_is_a_track():
    """Tracks are dropped, and false ones join them."""
    part = interaction(drop_prob=0, false_prob=0, max_missed=2)
    # Track 3 is seen, 8 is missing for the first time, 5 new and has two queries.
    persons = [0, 2, 2, 0, 0, 1, 0]
    updated, spatial = by_truth(part, tracks(3, 8), persons)
    assert updated.ids.tolist() == [3, 5, 8]
    assert updated.missed.tolist() == [0, 0, 1]
    assert updated.spatial[:2].equal(spatial[[5, 2]])
    again, _ = by_truth(part, tracks(3, 8, missed=[0, 1]), persons)
    assert again.ids.tolist() == [3, 5]
    persons = [0, 0, 2, 0, 0, 1]
    assert len(by_truth(interaction(drop_prob=1), tracks(3), persons)[0]) == 0
    part = interaction(drop_prob=0, false_prob=1)
    updated, spatial = by_truth(part, tracks(3), persons)
    # Queries 1 and 4 stand for nobody and overlap the tracks.
    assert updated.ids.tolist() == [3, 5, -1, -1]
    assert updated.spatial[2:].equal(spatial[[1, 4]])


def of_loader(keyframes):
    """A batch of sequences from a loader: lists of first, second, … keyframes."""
    data = [batch(*samples) for samples in keyframes]
    return {name: [fields[name] for fields in data] for name in data[0]}


def losses_of(model, keyframes):
    data = model.data_preprocessor(of_loader(keyframes), training=True)
    return model(**data, mode='loss')


def test_without_tracks_it_is_the_plain_detector():
    """The loss is the mean of the keyframes."""
    model = detector(drop_prob=1.0)
    plain = build_detector()
    plain.load_state_dict(model.state_dict(), strict=False)
    for network in (model, plain):
        network.eval()  # batch norms keep their statistics
        network.head.score_thr = 0.0
    losses = losses_of(model, COMES_AND_GOES)
    expected = [tiny_losses(plain, *samples) for samples in COMES_AND_GOES]
    for name, value in losses.items():
        mean = torch.stack([terms[name] for terms in expected]).mean()
        torch.testing.assert_close(value, mean, rtol=1e-3, atol=1e-4)
    predictions, alone = (
        network.test_step(batch(data_sample()))[0].pred_instances
        for network in (model, plain)
    )
    assert len(predictions) == QUERIES and 'instances_id' not in predictions
    torch.testing.assert_close(predictions.scores, alone.scores)


@pytest.mark.parametrize(
    'data, dtype', [(COMES_AND_GOES, torch.float32), (NOBODY_THERE, torch.bfloat16)]
)
def test_the_gradient_reaches_every_parameter(data, dtype):
    model = detector(drop_prob=0)
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype is torch.bfloat16):
        losses = losses_of(model, data)
    model.parse_losses(losses)[0].backward()
    assert_all_learn(model)
    learns = model.query_interaction.temporal.ffn.layers[1].weight.grad.any()
    assert learns == (data is COMES_AND_GOES)
