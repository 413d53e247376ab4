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
    return record(label_id=label_id, points=points, **fields)


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
    config, checkpoint = write_model(tmp_path)
    head = 'head=dict(num_classes=3'
    config.write_text(config.read_text().replace(head, f'{head}, score_thr=0.0'))
    return str(config), str(checkpoint)


def ask(function, name, picture, thr=0.0):
    context = record(frame_name=name, conf_threshold=thr, conv_mask_to_poly=False)
    return function.detect(context, Image.fromarray(picture))


def test_shapes_are_the_persons_of_the_clip_so_far(tool, model):
    """A gap in the numbers, or another size, begins a clip."""
    function, inferencer = tool.create(*model), ActionDetInferencer(*model)
    (label,) = function.spec.labels
    assert [spec.name for spec in label.attributes] == [*inferencer.model.classes]
    random, clip = np.random.RandomState(0), []
    asked = [('a/7.png', 64, 1), ('a/8.png', 64, 2), ('a/8.png', 64, 3)]
    asked += [('a/10.png', 64, 1), ('b.mp4', 64, 1), ('b.mp4', 64, 2), ('b.mp4', 80, 1)]
    for name, width, length in asked:
        picture = random.randint(0, 255, (48, width, 3), np.uint8)
        clip = [*clip, picture][-length:]
        shapes = ask(function, name, picture)
        start = (length - 1) / 25
        options = dict(fps=25, start=start, tracker=None, pred_score_thr=0.0)
        (keyframe,) = inferencer.detect(clip, strict=True, **options).keyframes
        assert len(shapes) == len(keyframe.persons) > 0
        for shape, person in zip(shapes, keyframe.persons, strict=True):
            assert shape.label_id == label.id
            assert shape.points == pytest.approx(person.bbox)
            values = {value.spec_id: value.value for value in shape.attributes}
            done = {action.action for action in person.actions}
            assert values == {
                spec.id: str(spec.name in done).lower() for spec in label.attributes
            }
    assert ask(function, 'x', picture, thr=1.0) == []
    ask(function, 'x', picture, thr=None)
