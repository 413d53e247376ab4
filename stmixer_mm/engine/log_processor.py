"""Lines of the training log."""

from mmengine.runner import LogProcessor

from stmixer_mm.registry import LOG_PROCESSORS


@LOG_PROCESSORS.register_module()
class StageLogProcessor(LogProcessor):
    """mmengine's, with the losses of each earlier stage as one sum in the lines.

    The visualizer's back ends get every term. ``d0`` is the first stage's sum, ``dn``
    that of denoising in the last stage.
    """

    def get_log_after_iter(
        self, runner, batch_idx: int, mode: str
    ) -> tuple[dict[str, float], str]:
        tag, line = super().get_log_after_iter(runner, batch_idx, mode)
        sums: dict[str, float] = {}
        for name, value in tag.items():
            stage, _, term = name.rpartition('.')
            if stage and 'loss' in term:
                sums[stage] = sums.get(stage, 0.0) + value
                line = line.replace(f'  {name}: {value:.{self.num_digits}f}', '', 1)
        parts = (
            f'  {name}: {value:.{self.num_digits}f}' for name, value in sums.items()
        )
        return tag, line + ''.join(parts)
