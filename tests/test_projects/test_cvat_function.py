"""tools/cvat_function.py, behind a small copy of the interface of cvat-sdk 2.80."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from run_tool import load_tool
from tiny_stmixer import write_model

from stmixer_mm.apis.inferencer import ActionDetInferencer

record = SimpleNamespace


def attribute_spec(name, id):
    return record(name=name, id=id, input_type='checkbox', values=[], mutable=False)


def rectangle(label_id, points, **fields):
    assert len(points) == 4
    return record(label_id=label_id, frame=0, type='rectangle', points=points, **fields)


@pytest.fixture
def tool(monkeypatch):
    """The tool, where cvat-sdk is a copy of what it uses."""
    interface = record(
        checkbox_attribute_spec=attribute_spec,
        label_spec=lambda name, id, **fields: record(name=name, id=id, **fields),
        DetectionFunctionSpec=record,
        rectangle=rectangle,
    )
    models = record(AttributeValRequest=record)
    sdk = record(auto_annotation=interface, models=models)
    monkeypatch.setitem(sys.modules, 'cvat_sdk', sdk)
    monkeypatch.setitem(sys.modules, 'cvat_sdk.auto_annotation', interface)
    monkeypatch.setitem(sys.modules, 'cvat_sdk.models', models)
    return load_tool('tools/cvat_function.py')


@pytest.fixture
def model(tmp_path):
    write_model(tmp_path)
    config = tmp_path / 'tiny.py'
    head = 'head=dict(num_classes=3'
    config.write_text(config.read_text().replace(head, f'{head}, score_thr=0.0'))
    return str(config), str(tmp_path / 'tiny.pth')


def ask(function, name, picture, thr=0.0):
    context = record(frame_name=name, conf_threshold=thr, conv_mask_to_poly=False)
    return function.detect(context, Image.fromarray(picture))


def test_shapes_are_the_persons_of_the_clip_so_far(tool, model):
    """A gap in the numbers, or another size, begins a clip."""
    function, inferencer = tool.create(*model), ActionDetInferencer(*model)
    (label,) = function.spec.labels
    names = {spec.id: spec.name for spec in label.attributes}
    assert [*names.values()] == list(inferencer.model.classes)
    random = np.random.RandomState(0)
    pictures = random.randint(0, 255, (6, 48, 64, 3), np.uint8)
    wide = random.randint(0, 255, (48, 80, 3), np.uint8)
    asked = [('a/7.png', pictures[0], 1), ('a/8.png', pictures[1], 2)]
    asked += [('a/8.png', pictures[2], 3), ('a/10.png', pictures[3], 1)]
    asked += [('b.mp4', pictures[4], 1), ('b.mp4', pictures[5], 2), ('b.mp4', wide, 1)]
    clip = []
    for name, picture, length in asked:
        clip = [*clip, picture][-length:]
        shapes = ask(function, name, picture)
        start = (length - 1) / 25
        options = dict(fps=25, start=start, tracker=None, pred_score_thr=0.0)
        (keyframe,) = inferencer.detect(clip, strict=True, **options).keyframes
        assert len(shapes) == len(keyframe.persons) > 0
        for shape, person in zip(shapes, keyframe.persons, strict=True):
            assert (shape.label_id, shape.frame) == (label.id, 0)
            assert shape.points == pytest.approx(person.bbox)
            values = {names[value.spec_id]: value.value for value in shape.attributes}
            done = {action.action for action in person.actions}
            assert values == {
                name: str(name in done).lower() for name in names.values()
            }
    assert ask(function, 'x', wide, thr=1.0) == []
    ask(function, 'x', wide, thr=None)
