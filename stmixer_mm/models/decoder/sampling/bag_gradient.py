"""A gradient that lists what is to be summed, for :mod:`.embedding_bag`."""

import torch
from torch import Tensor


class BagGradient(Tensor):
    """Adding two of these lists the bags of both.

    Autograd adds the gradients of a tensor that is used several times. A table of a
    feature pyramid is used in every stage: as a tensor, its gradient would be written
    once for each of them, though few of its rows are in a stage's bags. So the stages
    hand back their bags, and whoever made the table sums all of them at once.

    A scalar to autograd. ``bags`` are tuples of tensors.
    """

    @staticmethod
    def __new__(cls, bags: list[tuple[Tensor, ...]], like: Tensor) -> 'BagGradient':
        gradient = Tensor._make_wrapper_subclass(
            cls, (), dtype=like.dtype, device=like.device
        )
        gradient.bags = bags
        return gradient

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.add.Tensor:
            first, second = args
            return cls(first.bags + second.bags, like=first)
        if func is torch.ops.aten.isnan.default:
            # Asked by autograd's anomaly mode, which sees what is in the bags, too.
            return torch.zeros((), dtype=torch.bool, device=args[0].device)
        raise NotImplementedError(f'{func} of a gradient that lists bags')

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self.bags)} bags)'
