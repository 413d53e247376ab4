"""Detection on a video: a model from a config, then one record per keyframe.

A model of tubelets yields a record per frame, and persons have the ids of tubes.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import nn

from stmixer_mm.apis.config import (
    building,
    check_arguments,
    check_device,
    load_config,
    merge_overrides,
)
from stmixer_mm.apis.cut import ClipLoader
from stmixer_mm.apis.predict import Predictor, predict
from stmixer_mm.apis.read import reader_of
from stmixer_mm.apis.tracking import Tracker
from stmixer_mm.datasets.annotations.ava_csv import read_label_names
from stmixer_mm.datasets.clips import Clip
from stmixer_mm.datasets.pipelines import dataset_configs
from stmixer_mm.datasets.streams import open_source
from stmixer_mm.datasets.videos import OnDamage
from stmixer_mm.engine.checkpoints import load_weights
from stmixer_mm.errors import UserError, printable
from stmixer_mm.registry import MODELS, Reuse, model_file_loader
from stmixer_mm.structures import Keyframe


def init_detector(
    config: str | Path | Config,
    checkpoint: str | Path | None,
    *,
    device: str = 'cpu',
    label_map: str | Path | None = None,
    cfg_options: dict | None = None,
) -> nn.Module:
    """Build a detector and load its parameters, all of which must fit.

    Scenes without a person stay empty: the head's ``fallback_topk`` is set to 0, and
    its ``score_thr`` to ``use.person_thr`` of the config, unless ``cfg_options`` set
    them.

    Args:
        config: Config file, or what was read from one.
        checkpoint: File or URL, or what tools/export.py wrote; None initialises the
            parameters as for training.
        device: Such as 'cpu' or 'cuda:0'.
        label_map: Label map (pbtxt) with the names of the actions. By default the
            names come from the checkpoint or the config's test set.
        cfg_options: Overrides, dotted key → value.

    Returns:
        In evaluation mode, with ``cfg`` (Config) and ``classes``, the names of the
        label ids 1, 2, … (None: unknown).

    Raises:
        UserError: one sentence that names what is wrong.
    """
    cfg = deepcopy(config) if isinstance(config, Config) else load_config(config)
    merge_overrides(cfg, cfg_options)
    settings = {key: cfg.get(key) for key in ('model', 'default_scope')}
    check_arguments(Config(settings))
    check_device(device)
    if not (logger := MMLogger.get_current_instance()).level:
        logger.setLevel(cfg.get('log_level') or 'INFO')  # as the runner does
    model, classes = _load_model(cfg, checkpoint)
    _prepare_use(model, cfg.get('use') or {}, cfg_options or {})
    if label_map or not classes:
        classes = _class_names(cfg, label_map)
    num_actions = getattr(getattr(model, 'head', None), 'num_classes', 0) - 1
    if label_map and 0 < num_actions != len(classes):
        raise UserError(
            f'{label_map} names {len(classes)} actions, but the model has '
            f'{num_actions}; give the label map that it was trained with.'
        )
    model.cfg, model.classes = cfg, tuple(map(printable, classes or ())) or None
    return model.to(device).eval()


def _load_model(
    cfg: Config, checkpoint: str | Path | None
) -> tuple[nn.Module, tuple[str, ...] | None]:
    """A model with its parameters, and the names of actions that are with them."""
    load_file = model_file_loader(checkpoint)
    if load_file is not None:
        load_file(cfg, checkpoint)
    with building(cfg, 'model'):
        model = MODELS.build(cfg.model)
    if load_file is not None:
        return model, model.classes
    if checkpoint is not None:
        return model, _classes_in(load_weights(model, checkpoint))
    model.init_weights()
    return model, None


def _prepare_use(model: nn.Module, use: dict, cfg_options: dict) -> None:
    """Leave scenes without persons empty, and tell a tracker of the query vectors."""
    head = getattr(model, 'head', None)
    settings = dict(fallback_topk=0, score_thr=use.get('person_thr'))
    for name, value in settings.items():
        is_set = f'model.head.{name}' in cfg_options or value is None
        if hasattr(head, name) and not is_set:
            setattr(head, name, value)
    if hasattr(model, 'with_query_vectors') and not reader_of(model).every_frame:
        model.with_query_vectors = True


def _classes_in(checkpoint: dict) -> tuple[str, ...] | None:
    """The names of the actions that mmengine wrote into a checkpoint, if any."""
    with suppress(LookupError, TypeError):  # others write other things
        names = checkpoint['meta']['dataset_meta']['classes']
        return tuple(names) if all(isinstance(name, str) for name in names) else None


def _class_names(cfg: Config, label_map: str | Path | None) -> tuple[str, ...] | None:
    with building(cfg, 'test dataset'):
        dataset = next(dataset_configs(cfg, 'test'), {})
        if label_map is None:
            root, file = dataset.get('data_root'), dataset.get('label_file')
            label_map = Path(root or '', file or '')
            if not label_map.is_file():
                return None
        names = read_label_names(str(label_map))
        numbers = range(1, max(names) + 1)
        return tuple(names.get(number, f'action {number}') for number in numbers)


def detect_video(
    model: nn.Module,
    video: object,
    *,
    interval_s: float | None = None,
    start: float = 0.0,
    end: float | None = None,
    on_damage: OnDamage | None = None,
    **options,
) -> Iterator[Keyframe]:
    """Detect persons and their actions along a video or a stream of frames.

    Of a video file only the frames of clips are decoded, of a stream all. Clips are
    those of the config's test pipeline. Inputs, except a stream's frames, are checked
    before this returns.

    The clips of a model of tubelets overlap, and their tubelets are joined into tubes,
    see :func:`.join_tubelets`. Each frame then has a record.

    Args:
        model: From :func:`init_detector`.
        video: Video file, or another source of :func:`.open_source`.
        interval_s: Seconds between keyframes, the first at ``start``; no frame is one
            twice. With tubelets it is between the middles of clips, which are moved to
            lie within the video. By default 1 s; with tubelets half a clip.
        start, end: Part of the video in seconds.
        on_damage: Called with each stretch that the file lacks, and each keyframe left
            out because its clip cannot be decoded; without it that is an error.
        options: See :func:`detect_clips`.

    Yields:
        In order of time.

    Raises:
        UserError: the video cannot be read, is shorter than a clip, or has nothing
            between ``start`` and ``end``.
    """
    source = open_source(video, on_damage=on_damage)
    loader, every_frame = ClipLoader(model.cfg), reader_of(model).every_frame
    part = dict(interval_s=interval_s, start=start, end=end)
    clips = loader.cut(source, inside=every_frame, **part)
    keyframes = detect_clips(model, loader, clips, on_damage=on_damage, **options)
    if not every_frame:
        return keyframes
    return (keyframe for keyframe in keyframes if clips.shows(keyframe.frame_index))


def detect_clips(
    model: nn.Module,
    loader: ClipLoader,
    clips: Iterable[Clip],
    *,
    score_thr: float = 0.3,
    nms_thr: float | None = None,
    tracker: Tracker | None = None,
    batch_size: int = 1,
    on_damage: OnDamage | None = None,
    reuse: Reuse = 'auto',
    predictor: Predictor = predict,
) -> Iterator[Keyframe]:
    """Detect in clips, such as those of :class:`.RecentFrames`, in order of time.

    Args:
        model: From :func:`init_detector`.
        loader: Of the model's config.
        clips: Taken one by one, so that they may be cut as they are needed.
        score_thr: Actions with lower scores are left out; their persons stay.
        nms_thr: Of persons whose boxes (with tubelets, in the middle of the clip) have
            a larger IoU, only the one of highest person score is kept; None: all.
        tracker: Gives persons in keyframes their ids; tubelets bring their own.
        batch_size: Clips that the model sees at once.
        on_damage: See :func:`detect_video`.
        reuse: See :meth:`.ActionDetInferencer.stream`.
        predictor: Such as :class:`stmixer_mm.projects.tiles.Tiles`.
    """
    options = dict(batch_size=batch_size, nms_thr=nms_thr, on_damage=on_damage)
    predictions = predictor(model, loader, clips, reuse=reuse, **options)
    for part in getattr(model, 'parts', ()):
        predictions = part.follow(predictions, model.head)
    read = reader_of(model).read
    return read(model, predictions, loader, score_thr=score_thr, tracker=tracker)
