"""Names of models to configs and weights: the package's, the release's, checkpoints."""

import ast
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from stmixer_mm.apis.config import check_registered, read_metafile
from stmixer_mm.engine.checkpoints import load_checkpoint_file
from stmixer_mm.errors import UserError, blame
from stmixer_mm.files import check_file, package_folder, sha256_of

DEFAULT_MODEL = 'stmixer-n_jhmdb'
RELEASE = 'stmixer_mm.projects.release'  # models whose weights are fetched


class ShippedModel(NamedTuple):
    """A model whose weights are in this package."""

    name: str
    config: Path
    checkpoint: Path
    sha256: str


def resolve_model(
    model: str | Path | Config | None, weights: str | Path | None
) -> tuple[str | Path | Config, str | Path | None]:
    """Config and weights of what a user named.

    Without ``weights``, ``model`` may be a name of a metafile, or a checkpoint that
    mmengine wrote, which has its config in it; None stands for the default model.

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
        if str(model) in dict(read_metafile()):
            return import_module(RELEASE).fetch(str(model))
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
