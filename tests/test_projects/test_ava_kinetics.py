"""AVA-Kinetics, from its published files to the score."""

import pytest
import torch
from run_tool import run_tool
from tiny_ava import FILM, build, evaluate, load, perfect, shown

from stmixer_mm.errors import UserError
from stmixer_mm.projects.annotate.ava_kinetics import convert_ava_kinetics

BOX = '0,0,1,1,1'


@pytest.fixture
def convert(write_text, write_video, tmp_path):
    """Lines written for lines read, and the conversion."""

    def convert(*lines, clips=('run/a-_b_000010_000020',), num_frames=101):
        file = write_text('kinetics_train_v1.0.csv', *lines)
        for clip in clips:
            write_video(f'clips/{clip}.mp4', num_frames=num_frames)
        out = tmp_path / 'out.csv'
        done = convert_ava_kinetics([file], out=out, clips=tmp_path / 'clips')
        return out.read_text().splitlines(), done

    return convert


def test_what_no_clip_shows_is_left_out_and_counted(convert, tmp_path, write_text):
    """Clips last 4 s of the 10 s in their names; c cannot be read, d is empty."""
    write_text('clips/c_000000_000010.mp4', 'x')
    (tmp_path / 'clips/d_000000_000010.mp4').touch()
    moments = ('a,4', 'a,6', 'a,30', 'b,4.1', 'c,1', 'd,1', 'gone,3')
    rows, done = convert(
        *(f'{moment},{BOX}' for moment in moments),
        *('a,2', 'a,3,,,,,', 'c,2'),
        clips=('a_000000_000010', 'a_000003_000013', 'b_000000_000010'),
        num_frames=40,
    )
    assert rows == [
        'a_000000_000010,4,0,0,1,1,1,0',
        'a_000003_000013,3,0,0,1,1,1,0',  # the other is nearer by its name
    ]
    assert done.notes == {
        'keyframes were left out: no clip shows them.': 5,
        'keyframes were left out: they have no person.': 3,
        'clips cannot be read and count as missing.': 1,
    }


def test_seconds_of_the_video_become_seconds_of_the_clip(convert, tmp_path):
    """A byte-order mark, Windows line ends, spaces and repeated lines are accepted."""
    text = (
        'a-_b,14.04,-0.01,0.2,0.3,0.4,12\r\n\r\n a-_b , 14.040 ,0.5,0.2,0.9,1.05,80\r\n'
        'a-_b,0014.04,0,0.2,0.3,0.4,4\r\na-_b,14.04,0.5,0.2,0.9,1,80\r\n'
        'a-_b,20,0.123456,0,1,1,1'
    )
    rows, done = convert('\ufeff' + text)
    assert rows == [
        'run/a-_b_000010_000020,4.04,0,0.2,0.3,0.4,12,0',
        'run/a-_b_000010_000020,4.04,0,0.2,0.3,0.4,4,0',
        'run/a-_b_000010_000020,4.04,0.5,0.2,0.9,1,80,1',
        'run/a-_b_000010_000020,10,0.123456,0,1,1,1,0',
    ]
    assert (len(done.keyframes), len(done.persons)) == (2, 3)


@pytest.mark.parametrize('line', ['a-_b,-1', 'a-_b,14,0,0,9,9,1', 'a-_b,14,0,0,1,1,'])
def test_a_faulty_line_is_named(convert, tmp_path, line):
    with pytest.raises(UserError, match=r'v1.0.csv, line 2: '):
        convert('a-_b,14,0,0,1,1,1', line, 'x')
    assert not list(tmp_path.glob('out*'))


@pytest.fixture
def ava_kinetics(ava, write_video, write_text):
    """Both parts: clips in folders of their classes, the annotation converted."""
    ava()
    box = '0.1,0.2,0.3,0.4'
    train = (
        ('skiing (slalom)/run_-a_000010_000020', 'yoga/c_000003_000013'),
        (f'run_-a,14.04,{box},12', f'run_-a,14.04,{box},2', f'c,5.5,{box},80'),
    )
    second = f'd,18.12,{box},1', 'd,18.12,0.5,0.2,0.9,1,80'
    val = (  # two clips that overlap, and one of a keyframe without persons
        ('yoga/d_000010_000020', 'zumba/d_000015_000025', 'zumba/e_000000_000010'),
        (f'd,16.08,{box},12', *second, 'e,4'),
    )
    for split, (clips, lines) in dict(train=train, val=val).items():
        folder = f'data/kinetics700/videos_{split}'
        for clip in clips:
            write_video(f'{folder}/{clip}.mp4', num_frames=100)
        published = f'data/ava_kinetics/ava_kinetics_v1_0/kinetics_{split}_v1.0.csv'
        write_text(published, *lines)
        out = f'data/ava_kinetics/annotations/kinetics_{split}.csv'
        args = published, '--clips', folder, '--out', out
        run_tool('data/ava_kinetics/convert', *args)


def test_ava_kinetics_has_the_right_frames(ava_kinetics, frame_number):
    config = load('ava-kinetics')
    train, val = build(config, 'train'), build(config, 'val')
    # Clips of 10 frames a second; d's first keyframe is nearer to the middle of the
    # first clip, its second to that of the other.
    assert [shown(sample, frame_number) for sample in val] == [
        (f'{FILM},0902', 60),
        (f'{FILM},0903', 26),
        ('yoga/d_000010_000020,0006.08', 61),
        ('zumba/d_000015_000025,0003.12', 31),
    ]
    keys = [train.get_data_info(index)['img_key'] for index in range(len(train))]
    assert keys[2:] == [
        'skiing (slalom)/run_-a_000010_000020,0004.04',
        'yoga/c_000003_000013,0002.5',
    ]
    assert train[2]['data_samples'].gt_instances.labels.shape[1] == 81


def test_one_config_gives_both_numbers(ava_kinetics):
    """And each part is scored on its own keyframes."""
    config = load('ava-kinetics')
    samples = list(perfect(build(config, 'val')))
    values = evaluate(config.val_evaluator, samples)
    prefixes = ('mAP', 'mAP_ava', 'mAP_kinetics')
    assert [values[f'{prefix}/overall'] for prefix in prefixes] == [1, 1, 1]
    assert next(iter(values)) == 'mAP/overall'  # what save_best='auto' takes

    only_ava = evaluate(config.val_evaluator, samples[:2])
    # Of the joint truth: bend 0 of 1, stand 2 of 3, watch 1 of 2.
    assert only_ava['mAP/overall'] == pytest.approx((0 + 2 / 3 + 1 / 2) / 3)
    assert only_ava['mAP_ava/overall'] == 1
    assert only_ava['mAP_kinetics/overall'] == 0

    wrong = dict(bboxes=torch.tensor([[0.6, 0, 0.9, 0.1]]), scores=torch.ones(1, 81))
    for index, right in ((3, 'mAP_ava'), (0, 'mAP_kinetics')):
        changed = [*samples]
        changed[index] = dict(samples[index], pred_instances=wrong)
        values = evaluate(config.val_evaluator, changed)
        assert [p for p in prefixes if values[f'{p}/overall'] == 1] == [right]
