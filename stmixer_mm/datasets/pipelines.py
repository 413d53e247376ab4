"""The datasets and pipelines of a config, without anything being built."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from mmengine.config import Config


def plain_datasets(dataset: object) -> list[Mapping]:
    """Configs of the datasets inside of wrappers such as ConcatDataset."""
    if isinstance(dataset, list | tuple):
        return [plain for part in dataset for plain in plain_datasets(part)]
    if not dataset or not isinstance(dataset, Mapping):  # none, or built already
        return []
    inner = dataset.get('datasets', dataset.get('dataset'))
    return [dataset] if inner is None else plain_datasets(inner)


def dataset_configs(cfg: Config, split: str) -> Iterator[Mapping]:
    """Datasets of ``train_dataloader`` or of another, inside of their wrappers."""
    loader = cfg.get(f'{split}_dataloader') or {}
    yield from plain_datasets(loader.get('dataset'))


def find(items: Iterable, condition: Callable[[object], bool]) -> int | None:
    """Index of the first item that fulfils a condition."""
    return next((i for i, item in enumerate(items) if condition(item)), None)


def find_sampler(transforms: Iterable) -> int | None:
    """Index of the transform of a pipeline that chooses the frames of clips."""

    def has_clip_len(transform: object) -> bool:
        return isinstance(transform, Mapping) and 'clip_len' in transform

    return find(transforms, has_clip_len)
