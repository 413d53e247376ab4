import argparse

import pytest
from mmengine.config import DictAction as HostAction

from stmixer_mm.apis import DictAction


def parse(*words, action=DictAction):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=action)
    return parser.parse_args(['--cfg-options', *words]).cfg_options


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('data/my gt.csv', 'data/my gt.csv'),
        ('"data/my gt.csv"', 'data/my gt.csv'),
        ("'data/a,b (1).csv'", 'data/a,b (1).csv'),
        ('[a b.csv, "c,d.csv"]', ['a b.csv', 'c,d.csv']),
        ('[["a,b"], (c d, 1)]', [['a,b'], ('c d', 1)]),
        ("don't,panic", ["don't", 'panic']),
        ('a(b', 'a(b'),
        ('x=y', 'x=y'),
    ],
)
def test_text_keeps_its_spaces_and_quotes_keep_commas(text, value):
    assert parse(f'a.b={text}', 'c=1') == {'a.b': value, 'c': 1}


@pytest.mark.parametrize(
    'text',
    [
        *('', '1', '1.5', '1e-3', 'true', 'None', 'a', "'5'", '"[1, 2]"', '1,2', 'a,'),
        *('[]', '()', '(1,)', '[a, b, c]', '[(1, 2, 3), [a, b], c]', '["a", "b"]'),
        *("'x','y'", '"x","y"'),
    ],
)
def test_the_rest_is_read_as_the_host_does(text):
    assert parse(f'a={text}') == parse(f'a={text}', action=HostAction)


def test_a_word_without_a_value_is_told(capsys):
    with pytest.raises(SystemExit):
        parse('a=1', 'gt.csv')
    assert "'gt.csv' is no setting: write KEY=VALUE" in capsys.readouterr().err
