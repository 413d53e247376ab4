import pickle

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch import nn

from stmixer_mm.engine.checkpoints import (
    check_checkpoint_file,
    check_state,
    compare_state,
    load_checkpoint_file,
    state_dict_of,
)


class Net(nn.Module):
    def __init__(self, width=3, extra=False):
        super().__init__()
        self.stem = nn.Linear(2, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, width)
        if extra:
            self.extra = nn.Linear(1, 1)


def test_own_state_fits():
    assert not compare_state(Net(), Net().state_dict())
    check_state(Net(), Net().state_dict(), source='x.pth')


def test_differences_are_sorted_into_three_kinds():
    found = compare_state(Net(width=3), Net(width=5, extra=True).state_dict())
    assert found.missing == []
    assert found.left_over == ['extra.weight', 'extra.bias']
    assert found.other_shape == [
        'head.weight (checkpoint 5x4, model 3x4)',
        'head.bias (checkpoint 5, model 3)',
    ]
    assert compare_state(Net(extra=True), Net().state_dict()).missing == [
        'extra.weight',
        'extra.bias',
    ]


def test_batch_counters_may_be_missing():
    state = Net().state_dict()
    del state['norm.num_batches_tracked']
    assert not compare_state(Net(), state)


@pytest.mark.parametrize(
    ('allow', 'fits'),
    [(['^head'], True), (['weight$'], False), (['weight$', 'bias$'], True)],
)
def test_allowed_parameters_may_differ(allow, fits):
    found = compare_state(Net(width=3), Net(width=5).state_dict(), allow=allow)
    assert bool(found) is not fits


def test_error_is_one_sentence_then_lists_cut_at_ten():
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(8)))
    with pytest.raises(ValueError, match='does not fit') as error:
        check_state(model, Net().state_dict(), source='other.pth')
    first, *lists = str(error.value).split('\n')
    assert 'other.pth' in first
    assert 'Sequential' in first
    assert '16 missing, 9 left over, 0 of another shape' in first
    assert len(lists) == 2
    assert lists[0].startswith('  missing: 0.weight, 0.bias, 1.weight')
    assert lists[0].endswith('4.bias, and 6 more')
    assert lists[1].endswith('head.bias')


@pytest.mark.parametrize('wrap', ['plain', 'under state_dict', 'parallel', 'averaged'])
def test_every_form_of_a_checkpoint_gives_the_same_names(wrap):
    net = Net()
    checkpoint = {
        'plain': lambda: net.state_dict(),
        'under state_dict': lambda: {'state_dict': net.state_dict(), 'meta': {}},
        'parallel': lambda: nn.DataParallel(net).state_dict(),
        'averaged': lambda: ExponentialMovingAverage(
            net, update_buffers=True
        ).state_dict(),
    }[wrap]()
    state = state_dict_of(checkpoint, source='x.pth')
    check_state(net, state, source='x.pth')
    check_state(nn.Sequential(net)[0], state, source='x.pth')


@pytest.mark.parametrize('content', [[1, 2], {'epoch': 3}, {'state_dict': {}}])
def test_file_without_parameters_is_refused(tmp_path, content):
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'x\.pth holds no parameters'):
        load_checkpoint_file(tmp_path / 'x.pth')


@pytest.mark.parametrize('zip_format', [True, False])
def test_loading_gives_back_what_was_saved(tmp_path, zip_format):
    net, path = Net(), tmp_path / 'x.pth'
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=zip_format)
    check_checkpoint_file(path)
    loaded = load_checkpoint_file(path)['state_dict']
    assert loaded.keys() == net.state_dict().keys()
    assert torch.equal(loaded['head.weight'], net.head.weight)


def bad_files(folder):
    torch.save(Net().state_dict(), folder / 'whole.pth')
    whole = (folder / 'whole.pth').read_bytes()
    (folder / 'cut.pth').write_bytes(whole[: len(whole) // 2])
    (folder / 'empty.pth').write_bytes(b'')
    (folder / 'text.pth').write_text('hello')


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('absent.pth', 'does not exist'),
        ('', 'is a folder'),
        ('empty.pth', 'is empty'),
        ('cut.pth', 'is cut off'),
        ('text.pth', 'is not a PyTorch checkpoint'),
    ],
)
def test_what_is_no_checkpoint_is_found_without_loading(tmp_path, name, message):
    bad_files(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        check_checkpoint_file(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize('url', ['https://x.org/a.pth', 'open-mmlab://x', 's3://b/a'])
def test_urls_are_left_to_the_loader(url):
    check_checkpoint_file(url)


class Unsafe:
    pass


def test_unsafe_content_is_named(tmp_path):
    torch.save({'state_dict': {}, 'payload': Unsafe()}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'x\.pth holds an object of type .*Unsafe'):
        load_checkpoint_file(tmp_path / 'x.pth')


def test_other_pickles_are_named(tmp_path):
    (tmp_path / 'x.pkl').write_bytes(pickle.dumps({'a': 1}, protocol=2))
    with pytest.raises(ValueError, match=r'x\.pkl'):
        load_checkpoint_file(tmp_path / 'x.pkl')
