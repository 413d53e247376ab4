"""Sizes that no decoder can have."""

from stmixer_mm.errors import UserError


def check_counts(**counts: int) -> None:
    """Refuse fewer than one of something."""
    for name, count in counts.items():
        if count < 1:
            raise UserError(
                f'The decoder has {name}={count!r}; set model.decoder.{name} to 1 or '
                'more.'
            )


def check_widths(embed_dims: int, num_classes: int, **divisors: int) -> None:
    """Refuse widths that no stage can have."""
    for name, divisor in (*divisors.items(), ('the position code', 8)):
        if embed_dims % divisor:
            raise UserError(
                f'embed_dims={embed_dims} is not a multiple of {divisor}, which '
                f'{name} needs; choose an embed_dims that is.'
            )
    if num_classes < 2:
        raise UserError(
            f'num_classes={num_classes} leaves no action, because class 0 is a '
            'dummy; set it to the number of actions plus one.'
        )
