"""Models of the release: fetched once, converted and stored."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from stmixer_mm.apis.config import read_metafile
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import (
    DOWNLOAD_S,
    atomic_path,
    cache_folder,
    check_writable_dir,
    package_folder,
    sha256_of,
    write_atomically,
)
from stmixer_mm.projects.release.conversion import convert_checkpoint


class ReleasedModel(NamedTuple):
    name: str
    config: Path
    url: str

    @property
    def checkpoint(self) -> Path:
        """Path of the converted checkpoint."""
        return cache_folder() / f'{self.name}.pth'


def list_released() -> dict[str, ReleasedModel]:
    """The models of the release with a checkpoint, by their short names.

    One of several names names the checkpoint.
    """
    return {
        name: ReleasedModel(
            model['Alias'][0], package_folder() / model['Config'], model['Weights']
        )
        for name, model in read_metafile()
        if '://' in model['Weights']
    }


def fetch(name: str) -> tuple[Path, Path]:
    """Config and checkpoint of a model of the release."""
    model = list_released()[name]
    return model.config, fetch_released(model)


def fetch_released(model: ReleasedModel) -> Path:
    """The checkpoint of a released model; fetched and converted if it is not there.

    A download that was cut off continues. The SHA-256 of the file stands beside it.

    Raises:
        UserError: it cannot be fetched, or is not of this model.
    """
    checkpoint = model.checkpoint
    if checkpoint.exists():
        return checkpoint
    check_writable_dir(checkpoint.parent, purpose='cache of models')
    released = checkpoint.with_suffix('.released.pth')
    if not released.exists():
        remedy = f'fetch it in a browser, put it at {released}, and start again'
        with blame(
            f'{model.url}, the weights of {model.name}, cannot be fetched', remedy
        ):
            _download(model.url, released)
    try:
        with atomic_path(checkpoint) as part:
            parts = convert_checkpoint(released, part)
            if not _fits(model, parts):
                candidates = [candidate.name for candidate in list_fitting(parts)]
                names = ', '.join(candidates) or 'none'
                raise UserError(
                    f'{model.url} is no checkpoint of {model.name} but of {names}; '
                    f'fetch the right one in a browser, put it at {released}, and start '
                    'again.'
                )
            line = f'{sha256_of(part)}  {checkpoint.name}\n'
            write_atomically(checkpoint.with_suffix('.sha256'), line.encode())
    except UserError:
        released.unlink()
        raise
    released.unlink()
    return checkpoint


def _download(url: str, file: Path) -> None:
    try:
        import gdown  # an extra
    except ModuleNotFoundError as error:
        raise RuntimeError(
            "gdown is missing: pip install 'stmixer_mm[weights]'"
        ) from error
    gdown.download(url, str(file), resume=True, timeout=DOWNLOAD_S)


def list_fitting(parts: dict[str, dict]) -> list[ReleasedModel]:
    """The models of the release that consist of the parts of a converted checkpoint."""
    models = dict.fromkeys(list_released().values())
    return [model for model in models if _fits(model, parts)]


def _fits(model: ReleasedModel, parts: dict[str, dict]) -> bool:
    model_config = Config.fromfile(model.config).model
    for part, config in parts.items():
        settings = dict(config)
        class_name = settings.pop('type').rpartition('.')[2]
        if not model_config[part].type.endswith(class_name):
            return False
        for name, value in settings.items():
            if not _same(model_config[part].get(name, value), value):
                return False
    return True


def _same(first: object, second: object) -> bool:
    sequences = isinstance(first, Sequence) and isinstance(second, Sequence)
    return tuple(first) == tuple(second) if sequences else first == second
