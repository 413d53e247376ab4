"""Training that ends the same, however often it was stopped and resumed."""

import random
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop

from stmixer_mm.registry import HOOKS

STEP, SAMPLE = range(2)  # what random numbers are for


def set_random_numbers(*key: int) -> None:
    """Seed Python, numpy and torch by what the coming random numbers are for."""
    (seed,) = map(int, np.random.SeedSequence(key).generate_state(1))
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class SeededBatch(list):
    """Indices of samples; whoever takes one out gets its random numbers with it."""

    def __init__(self, indices: list[int], keys: list[tuple[int, ...]]) -> None:
        super().__init__(indices)
        self.keys = keys

    def __iter__(self) -> Iterator[int]:
        for index, key in zip(super().__iter__(), self.keys, strict=True):
            set_random_numbers(*key)
            yield index

    def __reduce__(self) -> tuple:
        return SeededBatch, (list(super().__iter__()), self.keys)


class SeededBatches:
    """A batch sampler whose samples have random numbers of their own.

    They depend on the seed, the epoch and the sample's place in the order of all
    processes: not on the worker, nor on how often the training was resumed.
    """

    def __init__(self, batches, seed: int) -> None:
        self._batches = batches
        self._seed = seed
        self.start_epoch(0)

    def start_epoch(self, epoch: int, *, skip: int = 0) -> None:
        """Count the samples anew, and leave out the first batches."""
        self._epoch, self._skip, self._count = epoch, skip, 0

    def skip(self, num_samples: int) -> None:
        """Begin after these samples, as ``InfiniteSampler`` of onedl-mmengine."""
        self._count += num_samples
        self._batches.sampler.skip(num_samples)

    def __getattr__(self, name: str):
        return getattr(self._batches, name)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[SeededBatch]:
        rank, processes = get_dist_info()
        for batch in self._batches:
            counts = range(self._count, self._count + len(batch))
            self._count = counts.stop
            if self._skip:
                self._skip -= 1
                continue
            places = (count * processes + rank for count in counts)
            keys = [(self._seed, SAMPLE, self._epoch, place) for place in places]
            yield SeededBatch(batch, keys)


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Let a resumed training end with the weights of an unbroken one, bit by bit.

    Checkpoints of mmengine leave out where random numbers, an epoch and the
    accumulation of gradients are. With this hook

    - random numbers (of Python, numpy and torch) depend on the seed and on the number
      of the step or sample, and on nothing that ran before;
    - an unseeded run keeps its order of samples;
    - an epoch goes on with the batch after its checkpoint (of ``by_epoch=False``);
    - gradients that wait for an update are in the checkpoint, except in distributed
      training.
    """

    # Before the hooks that save.
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._state: dict = {}  # of the checkpoint that is resumed
        self._steps = 0  # done in this epoch
        self._sampler = None

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if runner._resume:
            self._state = checkpoint.get('exact_resume', {})

    def before_train(self, runner) -> None:
        loop, loader = runner.train_loop, runner.train_dataloader
        self._batches = SeededBatches(loader.batch_sampler, runner.seed)
        self._sampler = getattr(loader.batch_sampler, 'sampler', None)
        if hasattr(self._sampler, 'seed'):
            self._sampler.seed = self._state.get('sampler_seed', self._sampler.seed)
        if loader.batch_sampler is not None:
            # It cannot be set on a loader.
            vars(loader).update(batch_sampler=self._batches, _iterator=None)
            if hasattr(self._sampler, 'skip'):
                vars(loader).update(sampler=self._batches)
        if hasattr(loop, 'dataloader_iterator'):
            # It has begun to load.
            if isinstance(self._sampler, InfiniteSampler):
                self._sampler.indices = self._sampler._indices_of_rank()
            loop.dataloader_iterator = type(loop.dataloader_iterator)(loader)
        if not is_model_wrapper(runner.model):
            gradients = self._state.get('gradients', {})
            for name, parameter in runner.model.named_parameters():
                if name in gradients:
                    parameter.grad = gradients[name].to(parameter)

    def before_train_epoch(self, runner) -> None:
        # Loops without epochs load what is to be skipped themselves.
        is_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        self._steps = self._state.get('steps_of_epoch', 0) if is_epoch else 0
        self._state = {}
        if not hasattr(runner.train_loop, 'dataloader_iterator'):  # which counts on
            self._batches.start_epoch(runner.epoch, skip=self._steps)
        set_random_numbers(runner.seed, STEP, runner.iter)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        set_random_numbers(runner.seed, STEP, runner.iter)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._steps += 1

    def after_train_epoch(self, runner) -> None:
        self._steps = 0

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if 'optimizer' not in checkpoint:
            return
        state = checkpoint['exact_resume'] = dict(steps_of_epoch=self._steps)
        if hasattr(self._sampler, 'seed'):
            state['sampler_seed'] = self._sampler.seed
        if not is_model_wrapper(runner.model):
            state['gradients'] = {
                name: parameter.grad.cpu()
                for name, parameter in runner.model.named_parameters()
                if parameter.grad is not None  # after an update it is
            }
