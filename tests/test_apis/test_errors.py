import errno
import os

import pytest
import torch
from mmaction.registry import DATASETS, MODELS, TRANSFORMS
from torch.utils.data import DataLoader

from stmixer_mm.datasets import OpenVideo, SampleKeyframeClip, keyframe_dataset
from stmixer_mm.engine import SafeCheckpointHook
from stmixer_mm.errors import explain, user_errors


def caught(function, *args, **kwargs):
    with pytest.raises(Exception) as error:
        function(*args, **kwargs)
    return error.value


def raise_it(error):
    raise error


def test_what_the_package_raises_on_purpose_is_for_the_user():
    error = caught(SampleKeyframeClip, clip_len=0, frame_interval=1)
    assert explain(error) == str(error)


@pytest.mark.parametrize(
    'error', [ValueError('bug'), KeyError('x'), OSError(errno.EIO, 'broken')]
)
def test_what_others_raise_is_a_bug(error):
    assert explain(caught(raise_it, error)) is None


def test_error_inside_the_package_that_nobody_foresaw_is_a_bug():
    assert explain(caught(OpenVideo().transform, None)) is None


class Videos(torch.utils.data.Dataset):
    def __init__(self, foreseen):
        self.foreseen = foreseen

    def __len__(self):
        return 1

    def __getitem__(self, index):
        if self.foreseen:
            return OpenVideo().transform(dict(filename='absent.mp4'))
        raise FileNotFoundError('bug')


@pytest.mark.parametrize('foreseen', [True, False])
def test_errors_of_loader_workers_are_told_apart_too(foreseen):
    loader = DataLoader(Videos(foreseen), num_workers=1, multiprocessing_context='fork')
    sentence = explain(caught(lambda: next(iter(loader))))
    if foreseen:
        assert sentence.startswith('absent.mp4 does not exist')
        assert '\n' not in sentence
    else:
        assert sentence is None


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (dict(score_thrr=0.5), "no argument 'score_thrr'; did you mean score_thr?"),
        (dict(zzz=1), "no argument 'zzz'; it takes assigner, loss_person"),
        ({}, "lacks what it requires: 'assigner', 'loss_person'"),
    ],
)
def test_part_that_cannot_be_built_is_named(change, expected):
    error = caught(MODELS.build, dict(type='STMixerHead', **change))
    sentence = explain(error)
    assert "type='STMixerHead'" in sentence
    assert expected in sentence
    assert '\n' not in sentence


def test_part_of_a_host_that_refuses_its_arguments_is_named():
    neck = dict(type='mmdet.FPN', in_channels=[4, 8], out_channels=4, num_outs=1)
    error = caught(MODELS.build, dict(type='FramewiseNeck', neck=neck))
    sentence = explain(error)
    assert "type='FPN' refuses its arguments (assert num_outs" in sentence
    assert '\n' not in sentence


@pytest.mark.parametrize(
    ('part', 'words'),
    [
        (
            dict(type='SampleKeyframeClip', clip_len='a', frame_interval=1),
            "'SampleKeyframeClip' takes clip_len as int, not 'a'; correct it.",
        ),
        (
            dict(
                type='KeyframeDataset', ann_file='a.csv', pipeline=[], num_classes=None
            ),
            "'KeyframeDataset' takes num_classes as int, not None; correct it.",
        ),
        (
            dict(type='mmaction.Resize', scale=object()),
            "'Resize' refuses its arguments (Scale must be float",
        ),
    ],
)
def test_values_of_a_wrong_type_are_told_of_parts_that_do_not_build(part, words):
    registry = TRANSFORMS if part['type'] != 'KeyframeDataset' else DATASETS
    sentence = explain(caught(registry.build, part))
    assert words in sentence
    assert '\n' not in sentence


def test_part_of_ours_that_fails_for_another_reason_is_a_bug(monkeypatch):
    monkeypatch.setattr(keyframe_dataset, 'split_filename_tmpl', None)
    dataset = dict(type='KeyframeDataset', ann_file='a.csv', pipeline=[])
    assert explain(caught(DATASETS.build, dataset)) is None


def test_unknown_type_is_named_with_the_nearest():
    sentence = explain(caught(MODELS.build, dict(type='STMixerHed')))
    assert "type='STMixerHed'" in sentence
    assert sentence.endswith('did you mean STMixerHead?')


def test_arguments_of_a_base_class_are_suggested_too():
    from stmixer_mm.registry import HOOKS

    error = caught(HOOKS.build, dict(type='SafeCheckpointHook', max_keep_ckpt=1))
    assert 'did you mean max_keep_ckpts?' in explain(error)
    assert SafeCheckpointHook(max_keep_ckpts=1).max_keep_ckpts == 1


@pytest.mark.parametrize(
    ('code', 'words'),
    [
        (errno.ENOSPC, 'Cannot write'),
        (errno.EROFS, 'Cannot write'),
        (errno.EACCES, 'Cannot open'),
        (errno.EISDIR, 'Cannot open'),
    ],
)
def test_file_that_cannot_be_opened_or_written_is_for_the_user(code, words):
    error = OSError(code, os.strerror(code), '/some/file')
    sentence = explain(caught(raise_it, error))
    assert sentence.startswith(f'{words} /some/file ({os.strerror(code)}); ')


def test_small_gpu_is_for_the_user():
    error = torch.cuda.OutOfMemoryError('Tried to allocate 2 GiB. GPU 0 has …')
    assert 'train_dataloader.batch_size' in explain(caught(raise_it, error))


def test_user_errors_are_printed_and_end_the_program(capsys):
    with pytest.raises(SystemExit) as leave, user_errors():
        SampleKeyframeClip(clip_len=0, frame_interval=1)
    assert leave.value.code == 1
    printed = capsys.readouterr().err
    assert printed.startswith('error: clip_len=0')
    assert printed.count('\n') == 1


def test_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), user_errors():
        raise ZeroDivisionError


def test_switch_shows_the_traceback_of_user_errors(monkeypatch):
    monkeypatch.setenv('STMIXER_MM_TRACEBACK', '1')
    with pytest.raises(ValueError, match='clip_len=0'), user_errors():
        SampleKeyframeClip(clip_len=0, frame_interval=1)


def test_interruption_is_no_traceback(capsys):
    with pytest.raises(SystemExit) as leave, user_errors():
        raise KeyboardInterrupt
    assert leave.value.code == 130
    assert 'interrupted' in capsys.readouterr().err
