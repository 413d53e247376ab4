"""Laws of what is remembered of a video."""

import json
import shutil
from collections import OrderedDict
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bad_input import NO_PICKLE, check_content
from detections import assert_same_keyframes
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from run_tool import run_and_fail, run_tool
from safetensors.torch import save
from tiny_stmixer import write_model, write_video

from stmixer_mm.apis import ActionDetInferencer
from stmixer_mm.apis.config import load_config
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.errors import UserError
from stmixer_mm.projects.memory.bank import read_bank, write_bank
from stmixer_mm.projects.memory.long_term_actions import LongTermActions
from stmixer_mm.projects.memory.training import BankDataset, find_owners
from stmixer_mm.registry import DATASETS, MODELS

DIMS, ACTIONS = 16, 2
CONFIG = """
_base_ = './tiny.py'
custom_imports = dict(imports=['stmixer_mm.projects.memory'])
model = dict(
    type='BankActions', data_preprocessor=dict(type='BankPreprocessor'),
    memory=dict(type='LongTermActions', width=16, drop_prob=0, forget_prob=0),
)
banks = dict(
    _delete_=True, type='BankDataset', dataset=_base_.dataset,
    banks=_base_.dataset.data_root + '/banks',
)
train_dataloader = val_dataloader = test_dataloader = dict(dataset=banks)
optim_wrapper = dict(optimizer=dict(lr=0.5))
default_hooks = dict(check_checkpoint=dict(allow=['^memory[.]']))
"""


def memory(**settings):
    """A memory with trained weights."""
    torch.manual_seed(0)
    sizes = dict(embed_dims=DIMS, num_queries=4, num_classes=ACTIONS + 1)
    part = LongTermActions(width=16, **sizes | settings).eval()
    torch.nn.init.normal_(part.actions.weight)
    return part


def keyframe(time_s, persons=2):
    """Input of a memory at a keyframe: the clip and the detections in it."""
    random = torch.Generator().manual_seed(round(time_s * 1000))
    widths = dict(
        bboxes=4, person_vectors=2 * DIMS, person_logits=2, action_logits=ACTIONS
    )
    fields = {k: torch.rand(persons, w, generator=random) for k, w in widths.items()}
    instances = InstanceData(scores=torch.zeros(persons, 3), **fields)
    return SimpleNamespace(time_s=time_s), instances


class Head:
    """Scores are logits."""

    def score(self, stage, scale):
        return SimpleNamespace(action_scores=stage.action_logits)


def follow(part, keyframes):
    """Action logits, by time."""
    followed = part.follow(iter(keyframes), Head())
    return {clip.time_s: instances.scores[:, 1:] for clip, instances in followed}


TIMES = 0.0, 0.5, 1.25, 2.0, 3.75
each_direction = pytest.mark.parametrize('past_only', [True, False])


@each_direction
def test_shifted_times_change_nothing(past_only):
    part = memory(window_s=2, past_only=past_only)
    original = follow(part, [keyframe(t) for t in TIMES])
    shifted = [(SimpleNamespace(time_s=t + 512), keyframe(t)[1]) for t in TIMES]
    expected = {t + 512: values for t, values in original.items()}
    torch.testing.assert_close(follow(part, shifted), expected)


@each_direction
def test_persons_are_remembered_in_the_window_alone(past_only):
    part = memory(window_s=1.5, past_only=past_only)
    original = follow(part, [keyframe(t) for t in TIMES])
    for changed in TIMES:
        logits = follow(part, [keyframe(t, persons=2 + (t == changed)) for t in TIMES])
        for t in {*TIMES} - {changed}:
            passed_s = changed - t
            knows = abs(passed_s) <= 1.5 and (passed_s < 0 or not past_only)
            is_same = torch.allclose(logits[t], original[t], atol=1e-5)
            assert is_same != knows, (t, changed)


def test_nothing_remembered_changes_nothing():
    (_, instances), empty = keyframe(1), [keyframe(t, persons=0) for t in (0.5, 2)]
    for keyframes in [keyframe(1)], [empty[0], keyframe(1), empty[1]]:
        assert torch.equal(follow(memory(), keyframes)[1], instances.action_logits)


def test_persons_are_forgotten_in_training_alone():
    inputs = torch.rand(1, 3, 16), torch.rand(1, 5, 16), torch.ones(1, 5)
    part = memory(forget_prob=1, drop_prob=0)
    assert part(*inputs).abs().min() > 0
    assert not part.train()(*inputs).any()
    part.forget_prob = 0
    torch.testing.assert_close(part(*inputs), part.eval()(*inputs))


def test_neither_order_nor_padding_changes_anything():
    part = memory(num_frequencies=3)
    persons, remembered = torch.rand(2, 3, 16), torch.rand(2, 5, 16)
    passed_s = torch.tensor([[-3, 2, 1, -1, 5], [-1, 4, 0, torch.nan, torch.nan]])
    logits, order = part(persons, remembered, passed_s), torch.randperm(5)
    assert logits.abs().min() > 0
    shuffled = part(persons, remembered[:, order], passed_s[:, order])
    torch.testing.assert_close(logits, shuffled)
    alone = part(persons[1:], remembered[1:, :2], passed_s[1:, :2])
    torch.testing.assert_close(logits[1:], alone)


@pytest.mark.parametrize(('name', 'ignored'), [('spatial', 1), ('temporal', 0)])
def test_vectors_that_are_left_out_change_nothing(name, ignored):
    part = memory(vectors=[name])
    vectors, bboxes = torch.rand(2, 2 * DIMS), torch.rand(2, 4)
    expected = part.embed(vectors, bboxes)
    vectors.chunk(2, dim=1)[ignored].zero_()
    assert torch.equal(part.embed(vectors, bboxes), expected)


@each_direction
def test_detections_wait_for_what_comes_after_alone(past_only):
    """And what is kept of a video does not grow with it."""
    part, times, counts = memory(window_s=1, past_only=past_only), [], []

    def count(part, inputs, output):
        counts.append(inputs[1].size(1) // 2)  # keyframes, of two persons each

    def keyframes():
        for number in range(40):
            times.append(number / 4)
            yield keyframe(number / 4)

    part.register_forward_hook(count)
    for clip, _ in part.follow(keyframes(), Head()):
        assert times[-1] in (clip.time_s + (0 if past_only else 1.25), 9.75)
    assert len(counts) == 40
    assert max(counts) == (5 if past_only else 10)


# Whole detectors


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A tiny detector, its banks, and a memory that has learnt from them."""
    folder = tmp_path_factory.mktemp('memory')
    write_model(folder)
    rows = ''.join(f'{n}.mp4,1,0.01,0.01,0.9,0.9,{1 + n % 2},0\n' for n in range(4))
    (folder / 'train.csv').write_text(rows)  # an untrained detector finds whole frames
    (folder / 'memory.py').write_text(CONFIG)
    extract(folder, 'banks')
    run_tool('train', *training(folder, folder / 'work'))
    return folder


def extract(folder, out, *options, videos=('0.mp4', '1.mp4', '2.mp4', '3.mp4')):
    paths = [folder / name for name in ('tiny.py', 'tiny.pth', *videos)]
    options = '--interval-s', 0.2, '--nms-thr', 1, *options
    options += '--cfg-options', 'model.head.score_thr=0.0'
    run_tool('extract', *paths, '--out', folder / out, *options)


def training(folder, work_dir, *settings):
    """Arguments of the tool."""
    settings = f'load_from={folder}/tiny.pth', *settings
    return folder / 'memory.py', '--work-dir', work_dir, '--cfg-options', *settings


def build(folder, config='memory.py', weights='work/epoch_1.pth', **settings):
    options = {f'model.{name}': value for name, value in settings.items()}
    options['model.head.score_thr'] = 0.0
    files = folder / config, folder / weights
    return ActionDetInferencer(*files, 'cpu', cfg_options=options, show_progress=False)


DETECTION = dict(interval_s=0.2, pred_score_thr=0.0, nms_thr=1.0)


def detect(folder, *files, **settings):
    """Keyframes of a video, by the detector of ``build``."""
    detector = build(folder, *files, **settings)
    return detector.detect(folder / '1.mp4', **DETECTION).keyframes


def test_the_memory_learns_and_nothing_else(project):
    plain_state = torch.load(project / 'tiny.pth')
    state = torch.load(project / 'work/epoch_1.pth', weights_only=False)['state_dict']
    assert all(torch.equal(state[name], value) for name, value in plain_state.items())
    assert all(name.startswith('memory.') for name in state.keys() - plain_state)
    assert state['memory.actions.weight'].any()


def test_a_new_memory_or_none_changes_nothing(project):
    new = MODELS.build(load_config(project / 'memory.py').model)
    new.load_state_dict(torch.load(project / 'tiny.pth'), strict=False)
    torch.save(new.state_dict(), project / 'new.pth')
    expected = detect(project, 'tiny.py', 'tiny.pth')
    assert detect(project, weights='new.pth') == expected
    assert detect(project, memory=None) == expected


@each_direction
def test_a_stream_a_file_and_a_bank_give_the_same(project, past_only):
    settings = {'memory.past_only': past_only, 'memory.window_s': 0.5}
    inferencer = build(project, **settings)
    keyframes = inferencer.detect(project / '1.mp4', **DETECTION).keyframes
    reader = open_video(project / '1.mp4')
    stream = zip(reader.times, reader.get_batch(range(len(reader))), strict=True)
    assert_same_keyframes([*inferencer.stream(stream, **DETECTION)], keyframes)

    expected = action_scores(keyframes[5])  # at the annotated second
    assert expected != action_scores(detect(project, 'tiny.py', 'tiny.pth')[5])
    model = inferencer.model
    sample = DATASETS.build(model.cfg.test_dataloader.dataset)[1]['data_samples']
    with torch.no_grad():
        (sample,) = model.test_step(dict(data_samples=[sample]))
    scores = sample.pred_instances.scores[:, 1:].sort(descending=True).values
    # Vectors of banks are of 16 bits.
    np.testing.assert_allclose(scores, expected, atol=2e-4)


def action_scores(keyframe):
    return [[action.score for action in person.actions] for person in keyframe.persons]


def test_labels_are_those_of_persons_that_overlap():
    bboxes = torch.tensor([[0, 0, 0.5, 1], [0.1, 0, 0.6, 1], [0.7, 0, 1, 1.0]])
    gt_bboxes = torch.tensor([[0.5, 0, 1, 1], [0.08, 0, 0.6, 1]])
    assert find_owners(bboxes, gt_bboxes).tolist() == [2, 2, 1]
    assert find_owners(bboxes, gt_bboxes[1:]).tolist() == [1, 1, 0]
    assert find_owners(bboxes, gt_bboxes[:0]).tolist() == [0, 0, 0]


# Banks


def test_banks_are_what_was_found_and_written_once(project, capsys):
    bank = read_bank(project / 'banks/1.safetensors')
    assert bank.times == pytest.approx(np.arange(10) * 0.2)
    assert np.diff(bank.ends).tolist() == [4] * 10
    write_video(project / 'a/new.mp4')
    for shard, todo in ('0/2', 1), ('0/2', 0), ('1/2', 1):
        extract(project, 'more', '--shard', shard, videos=('a/new.mp4', '1.mp4'))
        assert f'videos to do: {todo},' in capsys.readouterr().out
    files = (project / folder / '1.safetensors' for folder in ('banks', 'more'))
    assert len({file.read_bytes() for file in files}) == 1
    write_video(project / 'a/new.mp4', frames=30)
    extract(project, 'more', videos=('a/new.mp4', '1.mp4'))
    assert 'videos to do: 1,' in capsys.readouterr().out
    assert len(read_bank(project / 'more/new.safetensors').times) == 15


def test_damaged_banks_are_written_anew_and_files_of_others_stay(project, capsys):
    extract(project, 'twice', videos=('1.mp4',))
    file = project / 'twice/1.safetensors'
    content = file.read_bytes()
    file.write_bytes(content.replace(b'F16', b'I16'))
    extract(project, 'twice', videos=('1.mp4',))
    assert f'{file} cannot be used' in capsys.readouterr().err
    assert file.read_bytes() == content
    file.write_bytes(b'of others')
    with pytest.raises(SystemExit):
        extract(project, 'twice', videos=('1.mp4',))
    assert file.read_bytes() == b'of others'


def changed_banks(project, tmp_path, change, names='0'):
    """A copy of the banks, some of them changed."""
    banks = shutil.copytree(project / 'banks', tmp_path / 'banks')
    for path in [*banks.glob(f'{names}.safetensors')]:
        change(path)
    return banks


def rewrite(path, times=(0.0, 1.0), width=2 * DIMS, vector=0.0, **changes):
    bank = read_bank(path)
    persons = torch.full((1, width), vector), torch.rand(1, 4), torch.ones(1)
    keyframes = [(time, *persons) for time in times]
    write_bank(path, keyframes, {**bank.about, **changes}, width)


BAD = [
    lambda path: path.unlink(),
    lambda path: rewrite(path, key='of another'),
    lambda path: rewrite(path, width=DIMS),
    lambda path: rewrite(path, vector=torch.nan),
    lambda path: rewrite(path, classes=['stand', 'jump']),
]


@pytest.mark.parametrize('change', BAD)
def test_bad_banks_end_with_one_sentence(
    project, tmp_path, change, capsys, monkeypatch
):
    # Runs of one second share a name, and so a logger.
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())
    banks = changed_banks(project, tmp_path, change)
    setting = f'train_dataloader.dataset.banks={banks}'
    line = run_and_fail(capsys, 'train', *training(project, tmp_path / 'w', setting))
    assert f'{banks}/0.safetensors' in line


def test_banks_of_other_times_or_too_short_a_window(project, tmp_path):
    dataset = load_config(project / 'memory.py').train_dataloader.dataset
    change = partial(rewrite, times=(0.5, 1.5))
    banks = changed_banks(project, tmp_path, change, '*')
    with pytest.raises(UserError, match='at an annotated time'):
        DATASETS.build(dataset | dict(banks=str(banks)))
    model = build(project).model
    sample = DATASETS.build(dataset | dict(window_s=3.0))[0]
    with pytest.raises(UserError, match='window_s=30'):
        model.test_step(dict(data_samples=[sample['data_samples']]))


def bank_content(**changes):
    arrays = dict(
        times=torch.tensor([0.0, 1.0]).double(),
        counts=torch.tensor([0, 1]).int(),
        vectors=torch.zeros(1, 8).half(),
        bboxes=torch.zeros(1, 4),
        person_scores=torch.zeros(1),
        about=dict(version=1, key='a', classes=['run']),
    )
    arrays |= changes
    about = json.dumps(arrays.pop('about'))
    arrays = {name: array for name, array in arrays.items() if array is not None}
    return save(arrays, {'stmixer_mm': about})


MUTATIONS = [
    dict(times=torch.zeros(2, 1)),
    dict(times=torch.tensor([0, torch.nan])),
    dict(times=torch.tensor([1.0, 1.0])),
    dict(counts=torch.tensor([-1, 2])),
    dict(counts=torch.tensor([1.0, torch.nan])),
    dict(counts=torch.tensor([1])),
    dict(vectors=torch.zeros(1)),
    dict(vectors=torch.zeros(1, 8)),
    dict(vectors=torch.zeros(1, 7).half()),
    dict(vectors=torch.zeros(2, 8).half()),
    dict(bboxes=torch.zeros(1, 5)),
    dict(bboxes=torch.full((1, 4), torch.inf)),
    dict(bboxes=torch.zeros(1, 4).int()),
    dict(person_scores=None),
    dict(about=[1]),
    dict(about=dict(version=1, classes=None)),
    dict(about=dict(version=1, key=1, classes=None)),
    dict(about=dict(version=1, key='a', classes=3)),
]


FOREIGN = [*NO_PICKLE, b'', b'\2' + bytes(7) + b'{}', bank_content()[:-1]]


@pytest.mark.parametrize(
    'content', [*FOREIGN, *(bank_content(**changes) for changes in MUTATIONS)]
)
def test_files_that_are_no_banks(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'a.safetensors'
    path.write_bytes(bank_content())
    read_bank(path)  # which is one
    check_content(path, content, read_bank)


@pytest.mark.parametrize('window_s', [np.nan, np.inf, 0, -1])
def test_windows_are_seconds(window_s):
    for build in memory, partial(BankDataset, {}, banks='none'):
        with pytest.raises(UserError, match='window_s'):
            build(window_s=window_s)
