"""Names of models to configs and weights: the package's, the release's, checkpoints.

The package's weights are in its folder ``weights``. The release's are fetched once,
converted and stored; it states no licence for them.
"""

import ast
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from stmixer_mm.apis.config import check_registered, read_metafile
from stmixer_mm.apis.conversion import convert_checkpoint
from stmixer_mm.engine.checkpoints import load_checkpoint_file
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import (
    DOWNLOAD_S,
    atomic_path,
    check_file,
    check_writable_dir,
    package_folder,
    sha256_of,
    write_atomically,
)

DEFAULT_MODEL = 'stmixer-n_jhmdb'


def cache_folder() -> Path:
    """Folder of fetched files."""
    cache = os.environ.get('XDG_CACHE_HOME') or Path('~/.cache').expanduser()
    return Path(cache, 'stmixer_mm')


class ShippedModel(NamedTuple):
    """A model whose weights are in this package."""

    name: str
    config: Path
    checkpoint: Path
    sha256: str


class ReleasedModel(NamedTuple):
    name: str
    config: Path
    url: str

    @property
    def checkpoint(self) -> Path:
        """Path of the converted checkpoint."""
        return cache_folder() / f'{self.name}.pth'


def resolve_model(
    model: str | Path | Config | None, weights: str | Path | None
) -> tuple[str | Path | Config, str | Path | None]:
    """Config and weights of what a user named.

    Without ``weights``, ``model`` may be a name of :func:`list_shipped` or
    :func:`list_released`, or a checkpoint that mmengine wrote, which has its config in
    it; None stands for the default model.

    Raises:
        UserError: the weights are damaged or cannot be fetched, or a checkpoint has no
            config.
    """
    if model is None and weights is not None:
        raise UserError(f'Weights {weights} need a config; name it, too.')
    model = DEFAULT_MODEL if model is None else model
    if weights is None and isinstance(model, str | Path):
        shipped = list_shipped().get(str(model))
        if shipped:
            return shipped.config, check_shipped(shipped)
        released = list_released().get(str(model))
        if released:
            return released.config, fetch_released(released)
        if Path(model).suffix in ('.pth', '.pt'):
            return config_in(model), model
    return model, weights


def config_in(checkpoint: str | Path) -> Config:
    """The config that mmengine wrote into a checkpoint, read without running its code.

    Of the modules that it imports, only those of this package are, and of types only
    registered ones may be named.

    Raises:
        UserError: there is none, or it is more than names and values, or names another
            type.
    """
    meta = load_checkpoint_file(checkpoint).get('meta') or {}
    with blame(f'There is no readable config in {checkpoint}', 'name its config, too'):
        tree = _DictsAsLiterals().visit(ast.parse(meta['cfg']))
        values = {
            line.targets[0].id: ast.literal_eval(line.value) for line in tree.body
        }
        imports = values.pop('custom_imports', {}).get('imports', ())
        modules = [name for name in imports if name.partition('.')[0] == 'stmixer_mm']
        import_modules_from_strings(modules)
        check_registered(values, str(checkpoint))
        return Config(values)


class _DictsAsLiterals(ast.NodeTransformer):
    """Turns ``dict({'a.b': 1}, c=2)`` into ``{'a.b': 1, 'c': 2}``."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        is_dict = getattr(node.func, 'id', '') == 'dict'
        is_dict &= all(isinstance(argument, ast.Dict) for argument in node.args)
        if not is_dict:
            return node
        keys = [key for argument in node.args for key in argument.keys]
        values = [value for argument in node.args for value in argument.values]
        return ast.Dict(
            keys + [ast.Constant(keyword.arg) for keyword in node.keywords],
            values + [keyword.value for keyword in node.keywords],
        )


def list_shipped() -> dict[str, ShippedModel]:
    """The models whose weights are in this package, by their names."""
    package = Path(__file__).resolve().parents[1]
    return {
        name: ShippedModel(
            name,
            package_folder() / model['Config'],
            package / model['Weights'],
            model['SHA256'],
        )
        for name, model in read_metafile()
        if '://' not in model['Weights']
    }


def check_shipped(model: ShippedModel) -> Path:
    """The weights of a model of this package, whose SHA-256 is compared.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    remedy = 'install stmixer_mm again'
    check_file(model.checkpoint, remedy=remedy)
    digest = sha256_of(model.checkpoint)
    if digest != model.sha256:
        raise UserError(
            f'{model.checkpoint} is damaged or of another version: its SHA-256 is '
            f'{digest[:12]}…, not {model.sha256[:12]}…; {remedy}.'
        )
    return model.checkpoint


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
