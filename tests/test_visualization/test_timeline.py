from detections import keyframe
from matplotlib.colors import to_hex

from stmixer_mm.apis.tracking import list_tubes
from stmixer_mm.structures import VideoDetections
from stmixer_mm.visualization.timeline import plot_timeline


def video(*keyframes, step_s=0.5):
    """A video of keyframes, each a dict of ids and actions."""
    moments = []
    for place, persons in enumerate(keyframes):
        bboxes = [(0, 0, 1, 1)] * len(persons)
        actions = [[(name, 0.9) for name in names] for names in persons.values()]
        moments.append(
            keyframe(place * step_s, 10 * place, bboxes, actions, [*persons])
        )
    return VideoDetections(source='a.mp4', keyframes=moments, tubes=list_tubes(moments))


def bars(axes):
    """Colour, first and last second of each bar, person by person."""
    extents = []
    for group in axes.collections:
        for path in group.get_paths():
            x = path.vertices[:, 0]
            extents.append((to_hex(group.get_facecolor()[0]), x.min(), x.max()))
    return extents


def test_a_row_for_each_person_a_bar_for_each_stretch(tmp_path):
    sits, walks = {0: ['sit']}, {0: ['walk']}
    detections = video(sits, sits | {1: ['walk']}, walks, sits)
    figure = detections.plot_timeline(tmp_path / 'who.png')
    assert (tmp_path / 'who.png').read_bytes()[1:4] == b'PNG'
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ['person 0']
    assert '1 seen for less than 1 s' in axes.get_xlabel()
    grey, *of_actions = bars(axes)
    assert grey[1:] == (0, 2)
    sit, walk = to_hex('C0'), to_hex('C1')
    assert of_actions == [(sit, 0, 1), (sit, 1.5, 2), (walk, 1, 1.5)]
    detections.classes = ['wave', 'walk', 'sit']
    (_, *of_actions) = bars(detections.plot_timeline().axes[0])
    assert [colour for colour, *_ in of_actions] == [to_hex('C2')] * 2 + [walk]
    (axes,) = plot_timeline(detections, shortest_s=0).axes
    assert len(axes.get_yticklabels()) == 2


def test_of_a_crowd_those_are_drawn_who_were_seen_longest():
    crowd = video(
        *({n: ['sit'] for n in range(2400) if n >= 40 * k} for k in range(60))
    )
    (axes,) = plot_timeline(crowd, most=3).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == 3 and {*names} <= {f'person {n}' for n in range(2360, 2400)}
    assert '2357 more, 40 seen for less than 1 s' in axes.get_xlabel()
    assert plot_timeline(crowd).get_size_inches()[1] < 30


def test_nobody_is_a_timeline_too():
    for nobody in (video(), video({}, {})):
        assert not plot_timeline(nobody).axes[0].get_yticklabels()
